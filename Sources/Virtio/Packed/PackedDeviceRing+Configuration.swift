extension PackedDeviceRing {
  /// Checks the configuration and makes the ring. No shared memory is written.
  ///
  /// - Throws: a rule of configuration.
  public init(activating configuration: consuming DeviceRingConfiguration<PackedDeviceRing>) throws(RingError) {
    let layout = try configuration.checkedLayout()
    unsafe descriptors = configuration.areas.descriptors
    unsafe driverEvent = configuration.areas.driver
    unsafe deviceEvent = configuration.areas.device
    segmentCapacity = max(configuration.segmentCapacity, configuration.areas.size)
    unsafe segments = .allocate(capacity: segmentCapacity)
    count = UInt32(layout.size)
    eventIndex = configuration.eventIndex
    inOrder = configuration.inOrder
    indirect = configuration.indirect
    stopsAtMalformedChain = configuration.stopsAtMalformedChain
    next = RingPosition(configuration.startIndex)
    usedNext = next
    firstPlace = 0
    firstFlags = 0
    takenCount = 0
    returned = 0
    published = 0
    callChecked = 0
    held = 0
    recallable = 0
    unannounced = 0
    hidden = 0
    batchCount = 0
    batchPlaces = 0
    batchId = 0
    isFull = false
    segmentCount = 0
    callUnconditionally = true
    failure = nil
    malformedChains = 0
  }

  /// Starts the ring anew, after the driver has laid its areas anew. What was outstanding is forgotten. A place that the ring
  /// does not have is its first.
  public mutating func reset(startIndex: UInt16) {
    next = RingPosition(startIndex & 0x7fff < count ? startIndex : RingFormat.packed.firstIndex)
    usedNext = next
    takenCount = 0
    returned = 0
    published = 0
    callChecked = 0
    held = 0
    recallable = 0
    unannounced = 0
    hidden = 0
    batchCount = 0
    batchPlaces = 0
    isFull = false
    segmentCount = 0
    callUnconditionally = true
    failure = nil
    malformedChains = 0
  }

  #if Testing
  /// What tells the ring from others, to a driver in the same mapping: the address of the driver area.
  public var identity: UInt { unsafe UInt(bitPattern: driverEvent) }
  #endif
}
