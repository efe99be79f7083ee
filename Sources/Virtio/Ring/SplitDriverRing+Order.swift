extension SplitDriverRing {
  /// As `drain`, in the order of publication: what was submitted first comes first. For rings whose buffers the device reads; empty
  /// buffers that were added by the burst come in any order.
  ///
  /// Which chains are out, whose they are, and when each was published, the private table says: nothing that a device could have
  /// written decides about anything.
  @discardableResult
  public mutating func drainInOrder(_ body: (UInt64) -> Void) -> Int {
    // Ages, so that the wrapping of the indices does not matter.
    var chains: [(age: UInt32, token: UInt64)] = []
    for id in 0..<size where unsafe shadow.entries[id].count != 0 {
      unsafe chains.append((availIndex &- shadow.published[id], shadow.entries[id].token))
    }
    chains.sort { $0.age > $1.age }
    for chain in chains { body(chain.token) }
    return drain { _ in }
  }
}
