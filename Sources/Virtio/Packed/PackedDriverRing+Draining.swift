// What is in a ring when its device is reset: taken out, and the ring laid anew.
extension PackedDriverRing {
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
}
