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
      try await reserve(for: operation)
      return consume packet
    }
    // One reference for all that follows.
    let turn = turn
    if let end = turn.end { throw end.met(by: operation) }
    guard canSend(packet) else { throw .tooLong(packet.count, maximumFrameLength, operation) }
    if unsafe pool.owns(packet.record) {
      try await reserve(for: operation)
      return consume packet
    }
    try checkBuffers(for: packet.count, operation)
    try await lookForRoom(1, turn, for: operation)
    let hasRoom = unsafe frames.pointee.credits > 0 && turn.lineIsEmpty
    if hasRoom, turn.bufferLine.isEmpty, let first = unsafe turn.takeChain(for: packet.count) {
      return unsafe turn.adopt(packet, into: first)
    }
    if Task.isCancelled { throw .cancelled(operation) }
    // What has been accepted is the device's, as far as there is room.
    turn.flush()
    if let end = turn.end { throw end.met(by: operation) }
    if hasRoom { turn.statistics.poolEmpty &+= 1 } else { turn.statistics.ringFull &+= 1 }
    let waiter = turn.waiters.take(.buffers)
    waiter.need = packet.count
    turn.joinBufferLine(waiter, hasRoom: hasRoom)
    switch await waitToSend(waiter) {
    case .buffers(let first):
      let adopted = unsafe turn.adopt(packet, into: first)
      try turn.redeem(1, for: operation)
      return adopted
    case .failed(let error): throw error.met(by: operation)
    default: throw NetworkDeviceError(.closed, operation)
    }
  }
}

// MARK: - Buffers of the pool

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

// MARK: - Room in the ring

extension NetworkQueue {
  /// Waits until there is room for `count` frames, behind those who came before. The room is in the credits then.
  func reserve(_ count: Int = 1, for operation: String) async throws(NetworkDeviceError) {
    // One reference for all that follows.
    let turn = turn
    if let end = turn.end { throw end.met(by: operation) }
    let need = min(count, turn.transmitCapacity)
    try await lookForRoom(need, turn, for: operation)
    if unsafe frames.pointee.credits >= need, turn.lineIsEmpty { return }
    if Task.isCancelled { throw .cancelled(operation) }
    turn.statistics.ringFull &+= 1
    let waiter = turn.waiters.take(.space)
    waiter.need = need
    waiter.ticket = pool.queues.takeTicket()
    turn.senders.append(waiter)
    turn.withdrawCredits()
    turn.refuseSubmissions()
    turn.interestChanged()
    let outcome = await waitToSend(waiter)
    if case .failed(let error) = outcome { throw error.met(by: operation) }
    try turn.redeem(need, for: operation)
  }

  /// What this task has left in the mailbox goes first; and room that there is without waiting for others is in the credits then.
  func lookForRoom(_ need: Int, _ turn: QueueTurn, for operation: String) async throws(NetworkDeviceError) {
    turn.takeSubmissions()
    if unsafe frames.pointee.credits < need, turn.senders.isEmpty { turn.takeReleased() }
    if unsafe frames.pointee.credits < need, turn.lineIsEmpty, turn.ringRoom >= need {
      // There is room, but the turn's budget is used up: goes on in the next one.
      await waitForNextTurn()
    }
    if let end = turn.end { throw end.met(by: operation) }
  }
}
