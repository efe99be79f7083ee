/// One frame to transmit, as it crosses the seam and comes back: a slot, and what the queue wants to remember of it.
///
/// The driver keeps the 64 bits in its shadow table and returns them unchanged when the device has released the buffer.
@frozen public struct TransmitEntry: Sendable, Hashable, RawRepresentable {
  /// The 64 bits: slot number, cookie, and the separate-header mark.
  public var rawValue: UInt64

  /// An entry from its 64 bits.
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  @inlinable init(slot: UInt32, cookie: UInt32 = 0, isShared: Bool = false) {
    rawValue = UInt64(slot) | UInt64(cookie) << 32 | (isShared ? 1 << 63 : 0)
  }

  /// The slot in which the frame begins.
  @inlinable public var slot: UInt32 { UInt32(truncatingIfNeeded: rawValue) }

  /// True when somebody else holds the buffer too, perhaps another device: a net header must not be written into it.
  @inlinable public var needsSeparateHeader: Bool { rawValue >> 63 != 0 }

  /// Index of who waits for the release, 0 for nobody.
  @inlinable var cookie: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) & 0x7fff_ffff }
}
