import CNetdevSystem

extension SplitDriverRing {
  /// Checks the configuration, clears the ring's memory, and makes the ring.
  ///
  /// - Throws: a rule of configuration; nothing has then been written.
  public init(activating configuration: consuming DriverRingConfiguration<SplitDriverRing>) throws(RingError) {
    let layout = try configuration.checkedLayout()
    unsafe self.init(
      layout: layout, descriptors: configuration.areas.descriptors, avail: configuration.areas.driver,
      used: configuration.areas.device,
      eventIndex: configuration.eventIndex, inOrder: configuration.inOrder, indirect: configuration.indirect)
    lay(startIndex: configuration.startIndex)
  }

  /// Clears the shared areas and the private state; both indices start at `startIndex`.
  mutating func lay(startIndex: UInt16) {
    unsafe descriptors.initializeMemory(as: UInt8.self, repeating: 0, count: 16 * size)
    unsafe (availEntries - 4).initializeMemory(as: UInt8.self, repeating: 0, count: 6 + 2 * size)
    unsafe (usedEntries - 4).initializeMemory(as: UInt8.self, repeating: 0, count: 6 + 8 * size)
    unsafe netdev_store_release_u16(availEntries - 2, startIndex)
    unsafe netdev_store_release_u16(usedEntries - 2, startIndex)
    let index = UInt32(startIndex)
    availIndex = index
    published = index
    kickChecked = index
    usedIndex = index
    usedSeen = index
    batchRemaining = 0
    several = 0
    isOrderly = true
    kickUnconditionally = true
    shadow.clear()
    circle.clear()
    failure = nil
  }

  #if Testing
  /// What tells the ring from others: the address of its driver area.
  public var identity: UInt { unsafe UInt(bitPattern: availEntries - 4) }
  #endif
}
