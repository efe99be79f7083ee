/// One frame to transmit, as it crosses the seam and comes back: a slot, and what the queue wants to remember of it.
///
/// The driver keeps the 64 bits in its shadow table and returns them unchanged when the device has released the buffer.
@frozen public struct FrameEntry: Sendable, Hashable, RawRepresentable {
  /// The 64 bits: slot number, cookie, and the separate-header mark.
  public var rawValue: UInt64

  /// An entry from its 64 bits.
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  @inlinable init(slot: UInt32, cookie: UInt32 = 0, isPlain: Bool = true) {
    rawValue = UInt64(slot) | UInt64(cookie) << 32 | (isPlain ? 0 : 1 << 63)
  }

  /// A frame that a driver received: the slot it begins in, and whether it lies in that buffer alone.
  @inlinable public init(receivedIn slot: UInt32, isInOneBuffer: Bool = true) {
    self.init(slot: slot, isPlain: isInOneBuffer)
  }

  /// The slot in which the frame begins.
  @inlinable public var slot: UInt32 { UInt32(truncatingIfNeeded: rawValue) }

  /// True when the frame lies in one buffer that nobody else holds: a net header may be written before it. Otherwise it
  /// lies in several, or somebody, perhaps another device, reads the buffer too: its header must lie elsewhere.
  @inlinable public var isPlain: Bool { rawValue >> 63 == 0 }

  /// Index of who waits for the release, 0 for nobody.
  @inlinable var cookie: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) & 0x7fff_ffff }

  // The mark is the upper half: who waits, and whether the frame is plain; 0 for a plain frame that nobody waits for.

  @inlinable static func isPlain(mark: UInt64) -> Bool { mark >> 31 == 0 }

  @inlinable static func cookie(ofMark mark: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: mark) & 0x7fff_ffff }
}
