extension SplitDeviceRing {
  /// Checks the configuration and makes the ring. No shared memory is written.
  ///
  /// - Throws: a rule of configuration.
  public init(activating configuration: consuming DeviceRingConfiguration<SplitDeviceRing>) throws(RingError) {
    let layout = try configuration.checkedLayout()
    unsafe self.init(
      layout: layout, descriptors: configuration.areas.descriptors, avail: configuration.areas.driver,
      used: configuration.areas.device,
      segmentCapacity: max(configuration.segmentCapacity, configuration.areas.size),
      eventIndex: configuration.eventIndex,
      inOrder: configuration.inOrder, indirect: configuration.indirect,
      stopsAtMalformedChain: configuration.stopsAtMalformedChain)
    start(at: configuration.startIndex)
  }

  /// Starts the ring anew at `startIndex`, after the driver has laid its areas anew. What was outstanding is forgotten.
  public mutating func reset(startIndex: UInt16) { start(at: startIndex) }

  private mutating func start(at startIndex: UInt16) {
    let index = UInt32(startIndex)
    availIndex = index
    availSeen = index
    usedIndex = index
    published = index
    callChecked = index
    putBackFloor = index
    batchCount = 0
    batchHead = 0
    segmentCount = 0
    callUnconditionally = true
    failure = nil
    malformedChains = 0
  }

  #if Testing
  /// What tells the ring from others, to a driver in the same mapping: the address of the driver area.
  public var identity: UInt { unsafe UInt(bitPattern: availEntries - 4) }
  #endif
}
