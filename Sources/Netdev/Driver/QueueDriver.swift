/// One queue pair of a driver: the asynchronous `uknetdev` operations, one call a burst.
///
/// Everything is synchronous and happens on the queue's loop. Slots go in, slots come out; who holds which buffer is
/// `Netdev`'s knowledge. Publishing never rings: `ring` does, once a turn. A driver that meets a peer which breaks the
/// protocol throws; the queue is then broken and the device is reset.
public protocol QueueDriver: AnyObject {
  /// Frames that can be in flight at once if each lies in one buffer.
  var transmitCapacity: Int { get }

  /// Publishes frames in order, as many as fit; the device owns them now. No doorbell.
  ///
  /// - Returns: how many were published, from the front.
  /// - Throws: `frameTooLong` when the first frame can never be published: it alone fails. Anything else breaks the queue.
  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int

  /// Takes back frames whose buffers the device has released, in the order of their release.
  ///
  /// - Returns: how many were written to `entries`.
  /// - Throws: `broken` when the device broke the protocol: the queue ends.
  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int

  /// Takes received frames: their slots, the records filled in through the slot table. Once more after a confirmed reset, for
  /// what the device had delivered before.
  ///
  /// - Returns: how many were written to `entries`.
  /// - Throws: `broken` when the device broke the protocol: the queue ends.
  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int

  /// Buffers that reception wants now.
  var receiveRoom: Int { get }

  /// Gives the device empty buffers, as many as fit. No doorbell.
  ///
  /// - Returns: how many were taken, from the front.
  /// - Throws: whatever it throws breaks the queue.
  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int

  /// Rings the doorbells that what was published since the last call needs: at most one a direction.
  func ring()

  /// True while the device takes its turns on the queue's own loop, where what was published and rung for may be released at once.
  /// Whoever waits for the release of one frame then looks for it before it suspends; for a device elsewhere that would be in vain,
  /// and a doorbell a frame.
  var isServedHere: Bool { get }

  /// Asks for interrupts, then looks again.
  ///
  /// - Parameters:
  ///   - received: interrupt for the next received frame.
  ///   - released: when to interrupt for released buffers.
  /// - Returns: true when there is something to take already.
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool

  /// Interrupts are not needed: the loop is polling.
  func disarm()

  /// Frames and buffers that the device has not given back, for after a confirmed reset: calls `transmitted` with each
  /// frame in flight and `posted` with each empty buffer, once.
  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void)

  /// What the driver counted. Asked once a turn, at its end, so it should be at hand.
  var statistics: QueueDriverStatistics { get }
}

extension QueueDriver {
  /// Most devices are elsewhere.
  public var isServedHere: Bool { false }
}

/// When a device should interrupt for transmit buffers it releases.
public enum ReleaseInterrupt: Sendable, Hashable {
  /// Not at all.
  case never
  /// For the next one: a task waits for it.
  case next
  /// After most of what is in flight: nobody waits for a particular one.
  case most
}

/// Counters that only a driver can keep. On the queue's loop they are the driver's own; `QueueStatistics` has copies.
public struct QueueDriverStatistics: Sendable, Hashable {
  /// Doorbells rung, of both rings.
  public var kicks: UInt64 = 0
  /// Doorbells that were due and that the device did not want: once a turn and ring.
  public var kicksSuppressed: UInt64 = 0
  /// Interrupts received.
  public var interrupts: UInt64 = 0
  /// Bytes of the frames received, without net headers.
  public var bytesReceived: UInt64 = 0
  /// Bytes of the frames published, without net headers; a frame that is submitted again counts once.
  public var bytesSubmitted: UInt64 = 0
  /// Received frames dropped because their net header has a checksum to complete that does not lie in the frame.
  public var receiveDropsChecksum: UInt64 = 0
  /// Received frames dropped because their net header asks for a segmentation that was not agreed on or is incomplete.
  public var receiveDropsSegmentation: UInt64 = 0
  /// Received frames dropped because they were longer than a frame of this device may be.
  public var receiveDropsLength: UInt64 = 0
  /// Times that the device, when it was given buffers, was found to have used up all it had: what came in meanwhile it had to
  /// drop, or to hold back.
  public var receiveRingEmpty: UInt64 = 0
  /// Received frames dropped, for whatever reason.
  public var receiveDrops: UInt64 { receiveDropsChecksum &+ receiveDropsSegmentation &+ receiveDropsLength }
  /// Times that the device was lost and came back.
  public var recoveries: UInt64 = 0
  /// Frames in flight that were submitted again to a device that came back.
  public var resubmitted: UInt64 = 0
  /// Receive buffers that a lost device could still write to, kept aside now until it is known to be gone.
  public var quarantined: UInt64 = 0

  /// All zero.
  public init() {}
}

/// One frame, as it crosses the seam in either direction: the slot in which it begins, and what the queue wants to remember of it.
///
/// Of a frame to transmit the driver keeps the 64 bits, and returns them unchanged when the device has released the buffer.
@frozen public struct FrameEntry: Sendable, Hashable, RawRepresentable {
  /// The 64 bits: slot number, cookie, and two marks: that the header must lie elsewhere, and that others hold the packet too.
  public var rawValue: UInt64

  /// An entry from its 64 bits.
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  @inlinable init(slot: UInt32, cookie: UInt32 = 0, isPlain: Bool = true) {
    rawValue = UInt64(slot) | UInt64(cookie) << 32 | (isPlain ? 0 : 1 << 63)
  }

  /// A frame whose buffer others hold, too, and which has the bytes before it to itself until it is back.
  init(slot: UInt32, cookie: UInt32, hasFront: Bool) {
    rawValue = UInt64(slot) | UInt64(cookie) << 32 | (hasFront ? 1 << 62 : 1 << 63)
  }

  /// A frame that a driver received: the slot it begins in, and whether it lies in that buffer alone.
  @inlinable public init(receivedIn slot: UInt32, isInOneBuffer: Bool = true) {
    self.init(slot: slot, isPlain: isInOneBuffer)
  }

  /// The slot in which the frame begins.
  @inlinable public var slot: UInt32 { UInt32(truncatingIfNeeded: rawValue) }

  /// True when the frame lies in one buffer, and nobody else writes or reads what is before it there: a net header may be written
  /// there. Otherwise it lies in several, or another device may be reading a header before it: its own must lie elsewhere.
  @inlinable public var isPlain: Bool { rawValue >> 63 == 0 }

  /// Index of who waits for the release, 0 for nobody.
  @inlinable var cookie: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) & Self.cookieMask }

  @inlinable static var cookieMask: UInt32 { 0x3fff_ffff }

  /// The same frame, for somebody else to wait for.
  func with(cookie: UInt32) -> FrameEntry {
    FrameEntry(rawValue: rawValue & ~(UInt64(Self.cookieMask) << 32) | UInt64(cookie) << 32)
  }

  /// The flight has taken the front of its buffer (`SlotRecord.takeFront`), and leaves it when it ends.
  var hasFront: Bool { rawValue & 1 << 62 != 0 }

  // The mark is the upper half: who waits, and what is said of the buffer; 0 for a plain frame that nobody waits for.

  /// The frame lies in one buffer, and nobody else held it when it was submitted.
  @inlinable static func isOwned(mark: UInt64) -> Bool { mark >> 30 == 0 }

  @inlinable static func cookie(ofMark mark: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: mark) & cookieMask }
}
