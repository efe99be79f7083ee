extension UInt32 {
  /// With this mask of a ring: how many places there are from `index` to the ring's end.
  @inlinable
  @inline(__always)
  func straightRun(from index: UInt32) -> Int { Int(self &+ 1 &- (index & self)) }
}
