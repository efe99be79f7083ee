import CNetdevSystem

extension SplitDriverRing {
  /// As `drain`, in the order of publication: what was submitted first comes first.
  ///
  /// The order is read from the available ring, which a device could have scribbled over: it decides about nothing but the
  /// order. Which chains are out, and whose they are, the private table says. A chain whose entry has been overwritten is
  /// older than all whose entries are there.
  @discardableResult
  public mutating func drainInOrder(_ body: (UInt64) -> Void) -> Int {
    var heads: [Int] = []
    var isListed = [Bool](repeating: false, count: size)
    // Newest first: an older entry of the same head belongs to a use of it that is over.
    for distance in 1...UInt32(size) {
      let place = Int((availIndex &- distance) & mask)
      let head = Int(unsafe netdev_load_relaxed_u16(availEntries + 2 * place))
      // Below the size once it is compared.
      guard head < size, !isListed[head], unsafe shadow.entries[head].count != 0 else { continue }
      isListed[head] = true
      heads.append(head)
    }
    for id in 0..<size where !isListed[id] {
      if unsafe shadow.entries[id].count != 0 { body(unsafe shadow.entries[id].token) }
    }
    for head in heads.reversed() { body(unsafe shadow.entries[head].token) }
    return drain { _ in }
  }
}
