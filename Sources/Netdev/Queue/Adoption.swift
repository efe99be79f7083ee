internal import CNetdevSystem
internal import LibeventConcurrency
internal import PacketFormats

// A packet that does not lie in the queue's pool moves there before it is sent, and not before the ring has room for it: who waits
// for a slow device holds no buffers that others could use. Where the pool has no buffers for it its sender waits, as for room in
// the ring: first in first out, until the task is cancelled, the queue ends, or it is plain that no buffer will come because the
// program itself keeps them all.
extension NetworkQueue {
  /// How long senders wait for buffers of an empty pool, by the loop's clock, when none can be expected: then they are told so
  /// (`outOfMemory`).
  ///
  /// A buffer can be expected as long as a device of the pool still has any of the frames that it had when the sender began to
  /// wait, however long that takes: each of them may free its buffer. When all of those are back and none did, it is the
  /// program that keeps the buffers, or its receive rings; frames that are sent meanwhile, a kept one again and again for
  /// example, change nothing. Senders are served in the order in which they began to wait, over all queues of the pool, and
  /// one that is served renews the time of those behind it, as a buffer does that came for the one in front. A sender for whose
  /// packet the ring has no room does not wait for buffers yet, and has no claim to any.
  public static var bufferPatience: Duration { .seconds(1) }

  /// True when the packet's length is one that this queue's device takes: up to ``maximumFrameLength``, and with VLAN tags
  /// longer by these. From any thread.
  public nonisolated func canSend(_ packet: borrowing Packet) -> Bool {
    unsafe SlotRecord.isWithin(FrameLimit(untagged: maximumFrameLength), packet.record)
  }

  /// The packet may be sent as it lies: it is in this queue's pool, and no longer than an untagged frame of its device.
  nonisolated func isSendable(_ packet: borrowing Packet) -> Bool {
    let record = unsafe packet.record
    return unsafe pool.owns(record) && record.pointee.frameLength <= UInt32(clamping: maximumFrameLength)
  }

  /// Room for the packet, which is in the credits then, and the packet, if it may be sent as it lies after all, or a copy of it in
  /// this queue's pool. Waits while there is no room, or the pool has no buffers for it.
  ///
  /// - Throws: `frameTooLong` at once when the device never takes it, `outOfMemory` at once when the pool never has so many
  ///   buffers, or when none came for as long as ``bufferPatience``; `cancelled`; `closed` or the cause.
  func admit(_ packet: consuming Packet, for operation: String) async throws(NetworkDeviceError) -> Packet {
    if isSendable(packet) {
      _ = try await reserve(for: operation)
      return consume packet
    }
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, operation) }
    if let end = core.end { throw end.met(by: operation) }
    guard canSend(packet) else { throw .tooLong(packet.count, maximumFrameLength, operation) }
    if unsafe pool.owns(packet.record) {
      _ = try await reserve(for: operation)
      return consume packet
    }
    try checkBuffers(for: packet.count, operation)
    try await lookForRoom(1, core, operation)
    let hasRoom = unsafe state.pointee.credits > 0 && core.lineIsEmpty
    if hasRoom, core.bufferLine.isEmpty, let first = unsafe core.takeChain(for: packet.count) {
      return unsafe core.adopt(packet, into: first)
    }
    if Task.isCancelled { throw .cancelled(operation) }
    // What has been accepted is the device's, as far as there is room.
    core.flush()
    if let end = core.end { throw end.met(by: operation) }
    if hasRoom { core.statistics.poolEmpty &+= 1 } else { core.statistics.ringFull &+= 1 }
    let waiter = core.waiters.take(.buffers)
    waiter.need = packet.count
    core.joinBufferLine(waiter, hasRoom: hasRoom)
    switch await waitToSend(waiter, core) {
    case .buffers(let first):
      let adopted = unsafe core.adopt(packet, into: first)
      try core.useGranted(1, for: operation)
      return adopted
    case .failed(let error): throw error.met(by: operation)
    default: throw NetworkDeviceError(.closed, operation)
    }
  }
}

extension NetworkQueue {
  /// The pool has so many buffers for programs that a frame of this length can be copied into it one day.
  nonisolated func checkBuffers(for count: Int, _ operation: String) throws(NetworkDeviceError) {
    let buffers = pool.buffersNeeded(for: count)
    guard buffers > pool.buffersForPrograms else { return }
    throw NetworkDeviceError(
      .outOfMemory, operation,
      offered:
        "a frame of \(count) bytes takes \(buffers) buffers of a pool that has \(pool.buffersForPrograms) for programs",
      advice: "make a pool with more or larger buffers, or with a smaller reserve")
  }
}

extension Error {
  /// What a cancelled task is told by this library or by the language, or the close that came of the cancellation.
  var isOfCancellation: Bool {
    if let error = self as? NetworkDeviceError { return error.code == .cancelled || error.code == .closed }
    return self is CancellationError
  }
}

extension NetworkDeviceError {
  /// The task was cancelled before what it had to send was published.
  @usableFromInline static func cancelled(_ operation: String) -> NetworkDeviceError {
    NetworkDeviceError(.cancelled, operation, offered: "the task was cancelled before the packet was published")
  }

  /// A frame is longer than its device takes, which for one without tags is up to `limit`.
  package static func tooLong(_ length: Int, _ limit: Int, _ operation: String) -> NetworkDeviceError {
    NetworkDeviceError(
      .frameTooLong, operation, offered: "a frame of \(length) bytes",
      advice: "this device takes up to \(limit), and four more for each of up to two VLAN tags")
  }

  /// What an operation throws that waited for a frame which was too long: a driver, which says so, does not know what the operation is.
  func told(by operation: String) -> NetworkDeviceError {
    code == .frameTooLong ? NetworkDeviceError(code, operation, offered: offered, advice: advice) : self
  }

  /// What an operation throws that meets with this end of what it waited for. One cancellation is one error: a task that was
  /// cancelled is told just that, also when it is the close that came of it which ended the wait.
  func met(by operation: String) -> NetworkDeviceError {
    if code == .cancelled || (code == .closed && Task.isCancelled) { return .cancelled(operation) }
    return code == .outOfMemory ? NetworkDeviceError(code, operation, offered: offered, advice: advice) : self
  }
}
