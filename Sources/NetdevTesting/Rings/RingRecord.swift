internal import Virtio

/// What a monitor has seen of one ring, and what it checks when it looks again: by format `SplitRecord` or `PackedRecord`.
protocol RingRecord {
  /// The ring.
  var ring: MonitoredRing { get }
  /// Where checks are counted.
  var checks: RingChecks { get }
  /// Takes what is new. `isFresh` says that the driver has touched nothing of what it was shown as used since it was shown; a
  /// driver that says when it takes something back never has.
  mutating func look(isFresh: Bool) throws(RingViolation)
  /// The driver has asked whether the device wants to know, and has rung or not.
  mutating func noteKick(rang: Bool) throws(RingViolation)
  /// The device has asked whether the driver wants to know, and has interrupted or not.
  mutating func noteCall(rang: Bool) throws(RingViolation)
  /// A turn is over: who has published something has looked whether the other side wants to know.
  func checkTurnEnd() throws(RingViolation)
}

extension RingRecord {
  /// Unless `holds`, the clause is broken, as `seen` says.
  func check(_ clause: RingClause, _ holds: Bool, _ seen: @autoclosure () -> String) throws(RingViolation) {
    checks.count(clause)
    if !holds { throw RingViolation(clause: clause, ring: ring.name, format: ring.format, seen: seen()) }
  }

  /// How much there is to read and to write in a chain, whose buffers to read come first.
  func room(
    in buffers: [WatchedBuffer], of chain: Int
  ) throws(RingViolation) -> (readable: UInt64, writable: UInt64) {
    try check(.chainLength, buffers.count <= ring.size, "the chain of \(chain) has more links than the ring")
    var room = (readable: UInt64(0), writable: UInt64(0))
    for buffer in buffers {
      let isInOrder = buffer.isWritable || room.writable == 0
      try check(.readableFirst, isInOrder, "the chain of \(chain) goes on to read behind what is written")
      if buffer.isWritable { room.writable += UInt64(buffer.length) } else { room.readable += UInt64(buffer.length) }
    }
    return room
  }

  /// The number of descriptors of an indirect table that a chain of this number refers to.
  func tableCount(_ length: UInt32, of chain: Int) throws(RingViolation) -> Int {
    try check(.indirect, ring.indirect, "the chain of \(chain) has a table, which was not negotiated")
    let (count, rest) = Int(length).quotientAndRemainder(dividingBy: 16)
    try check(.indirect, count > 0 && rest == 0 && count <= ring.size, "the table of \(chain) has \(length) bytes")
    return count
  }

  // MARK: What headers say

  /// Bytes of the header before each frame, as far as this library negotiates it (VIRTIO 1.4 §5.1.9).
  private static var headerBytes: Int { 12 }

  /// The header, from as many buffers as it lies in; nil when it is not whole, or cannot be looked at.
  private func header(_ buffers: [WatchedBuffer]) -> [UInt8]? {
    var bytes: [UInt8] = []
    for buffer in buffers {
      let count = min(Int(buffer.length), Self.headerBytes - bytes.count)
      guard count > 0 else { continue }
      guard let place = ring.place?(buffer.address, count) else { return nil }
      let piece = unsafe Array(UnsafeRawBufferPointer(start: place, count: count))
      bytes += piece
    }
    return bytes.count == Self.headerBytes ? bytes : nil
  }

  /// A frame has a whole header that says nothing of what only a device says. `readable` is nil when it is not known.
  func checkTransmitHeader(_ buffers: [WatchedBuffer], readable: UInt64?, of chain: Int) throws(RingViolation) {
    guard ring.direction == .transmit else { return }
    if let readable {
      let isWhole = readable >= UInt64(Self.headerBytes)
      try check(.transmitHeader, isWhole, "the frame of \(chain) has \(readable) bytes, which is less than its header")
    }
    guard let header = header(buffers) else { return }
    // DATA_VALID and RSC_INFO are a device's to say.
    try check(.transmitHeader, header[0] & ~1 == 0, "the frame of \(chain) has flags \(header[0])")
    let count = Int(header[10]) | Int(header[11]) << 8
    try check(.transmitHeader, count == 0, "the frame of \(chain) says \(count) buffers")
  }

  /// Looks at a buffer that has come back. `frame` is how many of the frame that it is in are still to come; nil when it is not known
  /// where the next frame begins.
  func checkReceived(
    _ buffers: [WatchedBuffer], of chain: Int, length: UInt64, _ frame: inout Int?
  ) throws(RingViolation) {
    guard ring.direction == .receive else { return }
    // A chain that is returned empty has no frame in it.
    guard frame == 0, length > 0, let header = header(buffers) else {
      if length > 0 || frame != 0 { skipBuffer(&frame) }
      return
    }
    try check(.receivedBuffers, length >= UInt64(Self.headerBytes), "a frame of \(length) bytes has no header")
    let count = Int(header[10]) | Int(header[11]) << 8
    try check(
      .receivedBuffers, count >= 1 && (ring.mergedBuffers || count == 1),
      "the frame in chain \(chain) says that it lies in \(count) buffers")
    frame = count - 1
  }

  /// All buffers of a frame have been there, as far as it is known where it began.
  func checkWhole(_ frame: Int?) throws(RingViolation) {
    guard let frame, frame != 0 else { return }
    try check(.receivedBuffers, false, "\(frame) buffers of a frame are not there, and what comes before them is")
  }

  /// Goes on behind a buffer that is not looked at. Where a frame may begin in it, nobody knows of how many buffers that is.
  func skipBuffer(_ frame: inout Int?) {
    guard let rest = frame else { return }
    frame = rest > 0 ? rest - 1 : nil
  }
}
