internal import Virtio

/// What a monitor has seen of one ring, and what it checks when it looks again: by format `SplitRecord` or `PackedRecord`.
protocol RingRecord {
  /// The ring.
  var ring: MonitoredRing { get }
  /// Takes what is new. `isFresh` says that the device has just shown what it used, and that nobody has touched it since.
  mutating func look(isFresh: Bool) throws(RingViolation)
  /// The driver has asked whether the device wants to know, and has rung or not.
  mutating func noteKick(rang: Bool) throws(RingViolation)
  /// The device has asked whether the driver wants to know, and has interrupted or not.
  mutating func noteCall(rang: Bool) throws(RingViolation)
  /// A turn is over: who has published something has looked whether the other side wants to know.
  func checkTurnEnd() throws(RingViolation)
}

/// What is known of a chain when it has been followed, or as far as it has.
struct ChainShape {
  /// Buffers.
  private(set) var count = 0
  /// Bytes that the device may write.
  private(set) var writable: UInt64 = 0
  /// Where its first bytes are.
  private(set) var first: WatchedBuffer?

  /// One more buffer; the clause that it breaks, in a ring of this size.
  mutating func add(_ buffer: WatchedBuffer, size: Int) -> RingClause? {
    count += 1
    guard count <= size else { return .chainLength }
    guard buffer.isWritable || writable == 0 else { return .readableFirst }
    if buffer.isWritable { writable += UInt64(buffer.length) }
    if first == nil { first = buffer }
    return nil
  }
}

extension RingRecord {
  func broken(_ clause: RingClause, _ seen: String) -> RingViolation {
    RingViolation(clause: clause, ring: ring.name, format: ring.format, seen: seen)
  }

  /// Adds a buffer of the chain that goes by this number.
  func add(_ buffer: WatchedBuffer, to shape: inout ChainShape, of chain: Int) throws(RingViolation) {
    switch shape.add(buffer, size: ring.size) {
    case nil: return
    case .readableFirst?: throw broken(.readableFirst, "the chain of \(chain) goes on to read behind what is written")
    case let clause?: throw broken(clause, "the chain of \(chain) has no end")
    }
  }

  /// The number of descriptors of an indirect table that a chain of this number refers to.
  func tableCount(_ length: UInt32, of chain: Int) throws(RingViolation) -> Int {
    guard ring.indirect else { throw broken(.indirect, "the chain of \(chain) has a table, which was not negotiated") }
    let (count, rest) = Int(length).quotientAndRemainder(dividingBy: 16)
    guard count > 0, rest == 0, count <= ring.size else {
      throw broken(.indirect, "the table of \(chain) has \(length) bytes")
    }
    return count
  }

  // MARK: What headers say

  /// Bytes of the header before each frame, as far as this library negotiates it (VIRTIO 1.4 §5.1.9).
  private static var headerBytes: Int { 12 }

  private func header(_ buffer: WatchedBuffer?) -> UnsafeRawPointer? {
    guard let buffer, buffer.length >= Self.headerBytes else { return nil }
    return ring.place?(buffer.address, Self.headerBytes)
  }

  func checkTransmitHeader(_ first: WatchedBuffer?, of chain: Int) throws(RingViolation) {
    guard ring.direction == .transmit, let header = unsafe header(first) else { return }
    let flags = unsafe header.load(as: UInt8.self)
    // DATA_VALID and RSC_INFO are a device's to say.
    guard flags & ~1 == 0 else { throw broken(.transmitHeader, "the frame of \(chain) has flags \(flags)") }
    let buffers = unsafe header.load(fromByteOffset: 10, as: UInt16.self)
    guard buffers == 0 else { throw broken(.transmitHeader, "the frame of \(chain) says \(buffers) buffers") }
  }

  /// Looks at a buffer that has come back. `frame` is how many of the frame that it is in are still to come.
  func checkReceived(
    _ first: WatchedBuffer?, of chain: Int, length: UInt64, _ frame: inout Int
  ) throws(RingViolation) {
    guard ring.direction == .receive else { return }
    if frame > 0 {
      frame -= 1
      return
    }
    // A chain that is returned empty has no frame in it.
    guard length > 0, let header = unsafe header(first) else { return }
    guard length >= Self.headerBytes else {
      throw broken(.receivedBuffers, "a frame of \(length) bytes has no header")
    }
    let buffers = Int(unsafe header.load(fromByteOffset: 10, as: UInt16.self))
    guard buffers >= 1, ring.mergedBuffers || buffers == 1 else {
      throw broken(.receivedBuffers, "the frame in chain \(chain) says that it lies in \(buffers) buffers")
    }
    frame = buffers - 1
  }

  /// All buffers of a frame have been there.
  func checkWhole(_ frame: Int) throws(RingViolation) {
    guard frame == 0 else {
      throw broken(.receivedBuffers, "\(frame) buffers of a frame are not there, and what comes before them is")
    }
  }
}
