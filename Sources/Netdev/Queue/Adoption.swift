internal import CNetdevSystem
internal import LibeventConcurrency
internal import PacketFormats

// A packet that does not lie in the queue's pool moves there before it is sent. Where the pool has no buffers for it its sender
// waits, as for room in the ring: first in first out, until the task is cancelled, the queue ends, or it is plain that no
// buffer will come because the program itself keeps them all.
extension NetworkQueue {
  /// How long senders wait for buffers of an empty pool, by the loop's clock, when none can be expected: then they are told so
  /// (`outOfMemory`).
  ///
  /// A buffer can be expected as long as a device of the pool still has any of the frames that it had when the sender began to
  /// wait, however long that takes: each of them may free its buffer. When all of those are back and none did, it is the
  /// program that keeps the buffers, or its receive rings; frames that are sent meanwhile, a kept one again and again for
  /// example, change nothing. A sender that is served renews the time of those behind it.
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

  /// The packet, if it may be sent as it lies after all, or a copy of it in this queue's pool. Waits while the pool has no
  /// buffers for it.
  ///
  /// - Throws: `frameTooLong` at once when the device never takes it, `outOfMemory` at once when the pool never has so many
  ///   buffers, or when none came for as long as ``bufferPatience``; `cancelled`; `closed` or the cause.
  func adopt(_ packet: consuming Packet, for operation: String) async throws(NetworkDeviceError) -> Packet {
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, operation) }
    if let end = core.end { throw end.met(by: operation) }
    guard canSend(packet) else { throw .tooLong(packet.count, maximumFrameLength, operation) }
    if unsafe pool.owns(packet.record) { return consume packet }
    let buffers = pool.buffersNeeded(for: packet.count)
    guard buffers <= pool.buffersForPrograms else {
      throw NetworkDeviceError(
        .outOfMemory, operation,
        offered:
          "a frame of \(packet.count) bytes takes \(buffers) buffers of a pool that has \(pool.buffersForPrograms) for programs",
        advice: "make a pool with more or larger buffers, or with a smaller reserve")
    }
    if core.bufferLine.isEmpty, let first = unsafe core.takeChain(for: packet.count) {
      return unsafe core.adopt(packet, into: first)
    }
    if Task.isCancelled { throw .cancelled(operation) }
    // What has been accepted is the device's, as far as there is room.
    core.flush()
    if let end = core.end { throw end.met(by: operation) }
    core.statistics.poolEmpty &+= 1
    let waiter = core.waiters.take(.buffers)
    waiter.need = packet.count
    waiter.since = core.loop.now
    waiter.framesOut = core.pool.queues.framesOut()
    core.bufferLine.append(waiter)
    core.serveBufferLine()
    switch await wait(waiter, core) {
    case .buffers(let first): return unsafe core.adopt(packet, into: first)
    case .failed(let error): throw error.met(by: operation)
    default: throw NetworkDeviceError(.closed, operation)
    }
  }
}

extension QueueCore {
  /// Buffers for a frame of the program's own, from the pool or from what is at hand here and reception can spare.
  func takeChain(for count: Int, hasWaited: Bool = false) -> UnsafeMutablePointer<SlotRecord>? {
    if let first = unsafe pool.takeChain(for: count, hasWaited: hasWaited) { return unsafe first }
    guard unsafe local.pointee.count > 0 else { return nil }
    // Into the pool, where the reserve tells what may be taken; the next refill fetches the rest.
    unsafe pool.spill(local, keeping: 0)
    return unsafe pool.takeChain(for: count, hasWaited: hasWaited)
  }

  /// Copies a packet into buffers taken for it.
  func adopt(_ packet: borrowing Packet, into first: UnsafeMutablePointer<SlotRecord>) -> Packet {
    statistics.copiedToSend &+= 1
    return unsafe pool.adopt(packet, into: first)
  }

  /// Gives those who wait for buffers what there is, in order. While somebody still waits, the next buffer given back to the
  /// pool anywhere wakes this loop, and a timer sees to it that nobody waits for what cannot come.
  ///
  /// `Models/Sources/Netdev/PoolModels.swift` has a copy of the order of these steps.
  func serveBufferLine() {
    if settleBufferLine() { return endWish() }
    guard let first = bufferLine.first else { return }
    // Looks again after asking.
    let buffers = pool.buffersNeeded(for: first.need)
    unsafe pool.queues.wish(.init(level: pool.configuration.reserve + buffers - 1, claim: buffers), for: local)
    hasWish = true
    if settleBufferLine() { return endWish() }
    guard !bufferTimerRuns else { return }
    bufferTimerRuns = true
    bufferTimer?.schedule(after: NetworkQueue.bufferPatience)
  }

  /// Nobody of this queue waits for buffers any more, a ring without them included.
  func endWish() {
    guard hasWish, bufferLine.isEmpty else { return }
    hasWish = false
    unsafe pool.queues.withdraw(local)
  }

  /// True when nobody waits any more.
  private func settleBufferLine() -> Bool {
    while let waiter = bufferLine.first {
      guard let buffers = unsafe takeChain(for: waiter.need, hasWaited: true) else { return false }
      bufferLine.popFirst()
      lastBufferAt = loop.now
      waiter.settle(unsafe .buffers(buffers))
    }
    return true
  }

  /// Whoever has waited as long as one may, with none of its frames out and nobody served meanwhile, is told.
  func bufferTimerFired() {
    bufferTimerRuns = false
    serveBufferLine()
    guard let first = bufferLine.first else { return }
    let now = loop.now
    // Those behind it have waited for these, too. How long a device takes is its affair.
    if pool.queues.isAnyOut(first.framesOut) { lastBufferAt = now }
    let patience = UInt64(NetworkQueue.bufferPatience.components.seconds) &* 1_000_000_000
    while let waiter = bufferLine.first, now &- max(waiter.since, lastBufferAt) >= patience {
      bufferLine.popFirst()
      waiter.settle(.failed(noBuffers(for: waiter.need)))
    }
    guard let waiter = bufferLine.first else { return endWish() }
    bufferTimerRuns = true
    let waited = now &- max(waiter.since, lastBufferAt)
    bufferTimer?.schedule(after: .nanoseconds(Int64(clamping: patience &- min(waited, patience))))
  }

  private func noBuffers(for count: Int) -> NetworkDeviceError {
    NetworkDeviceError(
      .outOfMemory, "send",
      offered:
        "no buffers for \(count) bytes came free in \(NetworkQueue.bufferPatience): packets that the program keeps, or receive rings, hold them all",
      advice: "let packets go, or make the pool larger")
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

  static func tooLong(_ length: Int, _ limit: Int, _ operation: String) -> NetworkDeviceError {
    NetworkDeviceError(
      .frameTooLong, operation, offered: "a frame of \(length) bytes",
      advice: "this device takes up to \(limit), and four more for each of up to two VLAN tags")
  }

  /// What an operation throws that meets with this end of what it waited for. One cancellation is one error: a task that was
  /// cancelled is told just that, also when it is the close that came of it which ended the wait.
  func met(by operation: String) -> NetworkDeviceError {
    if code == .cancelled || (code == .closed && Task.isCancelled) { return .cancelled(operation) }
    return code == .outOfMemory ? NetworkDeviceError(code, operation, offered: offered, advice: advice) : self
  }
}
