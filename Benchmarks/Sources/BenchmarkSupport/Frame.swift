/// Exchanges the two addresses of an Ethernet frame; a shorter one stays as it is.
@inlinable @inline(__always)
public func swapAddresses(_ frame: inout MutableRawSpan) {
  guard frame.byteCount >= 12 else { return }
  let first = unsafe frame.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self)
  let last = unsafe frame.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt32.self)
  // Six bytes of destination, then six of source; the last two of the source are the upper half of `last`.
  frame.storeBytes(of: first >> 48 | UInt64(last) << 16 | first << 48, toByteOffset: 0, as: UInt64.self)
  frame.storeBytes(of: UInt32(truncatingIfNeeded: first >> 16), toByteOffset: 8, as: UInt32.self)
}
