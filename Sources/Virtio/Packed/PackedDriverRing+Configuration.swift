import CNetdevSystem

extension PackedDriverRing {
  /// Checks the configuration, clears the ring's memory, and makes the ring.
  ///
  /// - Throws: a rule of configuration; nothing has then been written.
  public init(activating configuration: consuming DriverRingConfiguration<PackedDriverRing>) throws(RingError) {
    let layout = try configuration.checkedLayout()
    unsafe descriptors = configuration.areas.descriptors
    unsafe driverEvent = configuration.areas.driver
    unsafe deviceEvent = configuration.areas.device
    count = UInt32(layout.size)
    eventIndex = configuration.eventIndex
    inOrder = configuration.inOrder
    indirect = configuration.indirect
    next = RingPosition(configuration.startIndex)
    usedNext = RingPosition(configuration.startIndex)
    free = count
    firstPlace = 0
    firstFlags = 0
    added = 0
    published = 0
    returned = 0
    kickChecked = 0
    unannounced = 0
    hidden = 0
    batchRemaining = 0
    several = 0
    isOrderly = true
    usedKind = 0
    idCursor = 0
    othersSeen = false
    kickUnconditionally = true
    shadow = ShadowTable(size: layout.size)
    failure = nil
    lay(startIndex: configuration.startIndex)
  }

  /// Clears the shared areas and the private state.
  ///
  /// No descriptor may look available or used: before the start on the next lap, from there on on this one.
  mutating func lay(startIndex: UInt16) {
    next = RingPosition(startIndex)
    for place in 0..<count {
      let marks = place < next.place ? next.marks : next.marks ^ DescriptorFlag.marks
      let descriptor = unsafe descriptors + 16 * Int(place)
      unsafe netdev_store_relaxed_u64(descriptor, 0)
      unsafe netdev_store_relaxed_u64(descriptor + 8, DescriptorFlag.word(length: 0, id: 0, flags: marks))
    }
    unsafe netdev_store_release_u32(driverEvent, EventFlag.enable)
    unsafe netdev_store_release_u32(deviceEvent, EventFlag.enable)
    usedNext = next
    free = count
    added = 0
    published = 0
    returned = 0
    kickChecked = 0
    unannounced = 0
    hidden = 0
    batchRemaining = 0
    several = 0
    isOrderly = true
    usedKind = 0
    idCursor = 0
    othersSeen = false
    kickUnconditionally = true
    shadow.clear()
    failure = nil
  }

  #if Testing
  /// What tells the ring from others: the address of its driver area.
  public var identity: UInt { unsafe UInt(bitPattern: driverEvent) }
  #endif
}
