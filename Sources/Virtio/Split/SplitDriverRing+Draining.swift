// What is in a ring when its device is reset: taken out, and the ring laid anew.
extension SplitDriverRing {
  /// Takes every token out of the ring, in table order, and says how many there were: once, after a confirmed reset.
  ///
  /// Before the reset is confirmed the device may still use the buffers (§3.3.1). The ring then refuses work until `reset`.
  @discardableResult
  public mutating func drain(_ body: (UInt64) -> Void) -> Int {
    fail(RingError(.drained, 0))
    return shadow.drain(body)
  }

  /// As `drain`, in the order of publication.
  @discardableResult
  public mutating func drainInOrder(_ body: (UInt64) -> Void) -> Int {
    if isOrderly { becomeDisorderly() }
    for token in shadow.tokensInOrder(before: availIndex) { body(token) }
    return drain { _ in }
  }

  /// Lays the ring anew at `startIndex`, as `activate` does: after a confirmed reset, when `drain` has emptied it.
  ///
  /// Throws `.outstanding` while the ring still holds tokens.
  public mutating func reset(startIndex: UInt16) throws(RingError) {
    guard shadow.outstanding == 0 else { throw RingError(.outstanding, UInt64(shadow.outstanding)) }
    lay(startIndex: startIndex)
  }
}
