extension UInt32 {
  /// With this mask of a ring: how many places there are from `index` to the ring's end.
  @inlinable
  @inline(__always)
  func straightRun(from index: UInt32) -> Int { Int(self &+ 1 &- (index & self)) }
}

/// The least of three. The library's `min` of more than two makes an array of them.
@inlinable
@inline(__always)
func least(_ one: Int, _ other: Int, _ third: Int) -> Int { min(min(one, other), third) }
