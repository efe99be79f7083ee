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

  /// Takes every token out of the ring, in no order, and says how many there were: once, after a confirmed reset.
  @discardableResult
  public mutating func drain(_ body: (UInt64) -> Void) -> Int {
    fail(RingError(.drained, 0))
    return shadow.drain(body)
  }

  /// As `drain`, in the order of publication: that of the ring, from the oldest on, unless the device has left it.
  @discardableResult
  public mutating func drainInOrder(_ body: (UInt64) -> Void) -> Int {
    guard isOrderly else {
      for token in shadow.tokensInOrder(before: added) { body(token) }
      return drain { _ in }
    }
    var position = usedNext
    for _ in 0..<(added &- returned) {
      // The first place of an outstanding chain.
      let entry = unsafe shadow.entries[Int(position.place)]
      body(entry.token)
      position.advance(by: UInt32(entry.count), size: count)
    }
    return drain { _ in }
  }

  /// Lays the ring anew at `startIndex`, as `activate` does: after a confirmed reset, when `drain` has emptied it.
  ///
  /// Throws `.outstanding` while the ring still holds tokens, `.startIndex` for a place that it does not have.
  public mutating func reset(startIndex: UInt16) throws(RingError) {
    guard shadow.outstanding == 0 else { throw RingError(.outstanding, UInt64(shadow.outstanding)) }
    guard startIndex & 0x7fff < count else { throw RingError(.startIndex, UInt64(startIndex)) }
    lay(startIndex: startIndex)
  }

  /// Clears the shared areas and the private state.
  ///
  /// No descriptor may look available or used: before the start on the next lap, from there on on this one.
  private mutating func lay(startIndex: UInt16) {
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
