#if Testing
internal import CNetdevSystem
#endif

// Every path in: the inlined one takes a frame on the loop while there is room; all else goes the slow way.
extension NetworkQueue {
  /// Submits a packet and returns once it is published: the queue's loop has taken it and the device will see it at the
  /// latest at the end of the loop's turn.
  ///
  /// Elsewhere than on the loop it returns once the packet is in the queue's inlet, in order: the loop is woken at most once
  /// for 32 packets, and takes them at the latest after a millisecond.
  ///
  /// Suspends while the ring is full, first in first out. The buffer returns to its pool when the device has released it
  /// and nobody else holds the packet.
  ///
  /// A packet that is not in the queue's pool, or too long for one buffer and just written, moves into buffers of the pool;
  /// while there are none it suspends too.
  ///
  /// Deadline: for room there is none, it is the device's affair when it releases something; for buffers see
  /// ``bufferPatience``. Cancellation ends the wait at once; where there is nothing to wait for it is not looked at, and the
  /// packet is submitted. The queue's end ends every wait.
  ///
  /// - Throws: `cancelled` if the task was cancelled while it waited for room or buffers, `closed` or the cause when the queue
  ///   has ended; what concerns this packet alone: `frameTooLong` when it is longer than the device takes, `outOfMemory` when
  ///   it is longer than all of the pool, or when no buffer could be expected for a second (``bufferPatience``): the program
  ///   itself keeps them all.
  @inlinable
  nonisolated(nonsending)
    public func submit(_ packet: consuming Packet) async throws(NetworkDeviceError)
  {
    if isHere, canAccept(packet) {
      acceptSingle(packet)
      return
    }
    guard let refused = submitFromOutside(consume packet) else { return }
    do throws(NetworkDeviceError) { try await submitSlowly(consume refused) } catch {
      throw error.broughtBack
    }
  }

  /// Elsewhere than on the loop: leaves the packet for the loop to take; returns it when it must go the long way.
  @usableFromInline nonisolated func submitFromOutside(_ packet: consuming Packet) -> Packet? {
    isHere ? packet : inlet.offer(consume packet)
  }

  /// On the loop: the packet can be taken as it is, now, and lies in one buffer.
  @inlinable nonisolated func canAccept(_ packet: borrowing Packet) -> Bool { hasRoom(for: 1) && isSimple(packet) }

  /// On the loop: the packet can be taken as it is when there is room, and lies in one buffer.
  @inlinable nonisolated func isSimple(_ packet: borrowing Packet) -> Bool {
    let record = unsafe packet.record
    return unsafe state.pointee.owns(record) && record.pointee.segments == 1
      && record.pointee.frameLength <= state.pointee.maximumFrame
  }

  /// On the loop: takes a packet that lies in one buffer; its reference is the driver's now.
  @inlinable nonisolated func acceptSingle(_ packet: consuming Packet, cookie: UInt32 = 0) {
    // Somebody else holds the buffer, perhaps another device: its net header must not be written into it.
    let isPlain = isKnownUniquelyReferenced(&packet.object)
    let slot = unsafe packet.record.pointee.slot
    _ = unsafe Unmanaged.passRetained(packet.object)
    if isPlain {
      unsafe QueueState.append(TransmitEntry(slot: slot, cookie: cookie), to: state)
    } else {
      unsafe QueueState.appendHeld(slot, cookie: cookie, to: state)
    }
  }

  /// On the loop: takes the packet; its reference is the driver's now.
  nonisolated func accept(_ packet: consuming Packet, cookie: UInt32 = 0) {
    if unsafe packet.record.pointee.segments == 1 { return acceptSingle(consume packet, cookie: cookie) }
    let slot = unsafe packet.record.pointee.slot
    _ = unsafe Unmanaged.passRetained(packet.object)
    unsafe QueueState.appendHeld(slot, cookie: cookie, to: state)
  }

  @usableFromInline func submitSlowly(_ packet: consuming Packet) async throws(NetworkDeviceError) {
    accept(try await admit(consume packet, for: "submit"))
  }

  /// Sends a packet and returns when the device has released its buffer.
  ///
  /// Waits for room and buffers as `submit(_:)` does.
  ///
  /// Deadline: none for the release, which is the device's affair; after ``NetworkDevice/close()``, or when the device is lost
  /// for good, it ends within `resetTimeout` and a second. Cancellation before the publication ends it at once, also when
  /// there was nothing to wait for; later it has no effect.
  ///
  /// - Throws: `cancelled` if the task was cancelled before publication (the packet was not sent), `closed` or the cause
  ///   when the queue ended before the device released the buffer; `frameTooLong` and `outOfMemory` as `submit(_:)`. After
  ///   publication cancellation has no effect: virtio has no way to take a single buffer back.
  public func send(_ packet: consuming Packet) async throws(NetworkDeviceError) {
    if Task.isCancelled { throw .cancelled("send") }
    let sendable = try await admit(consume packet, for: "send")
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, "send") }
    #if Testing
    if unsafe netdev_fault_is_planted("early-send") {
      accept(consume sendable)
      return core.interestChanged()
    }
    #endif
    let waiter = core.waiters.take(.release)
    core.releaseWaiters += 1
    accept(consume sendable, cookie: waiter.index)
    core.interestChanged()
    await park(waiter)
    let outcome = waiter.outcome
    core.waiters.putBack(waiter)
    if case .failed(let error) = outcome { throw error.told(by: "send") }
  }

  /// Waits until there is room for `count` frames, behind those who came before. The room is in the credits then.
  func reserve(_ count: Int = 1, for operation: String) async throws(NetworkDeviceError) -> QueueCore {
    guard let core = unsafe core else { throw NetworkDeviceError(.closed, operation) }
    if let end = core.end { throw end.met(by: operation) }
    let need = min(count, core.driver.transmitCapacity)
    try await lookForRoom(need, core, operation)
    if unsafe state.pointee.credits >= need, core.lineIsEmpty { return core }
    if Task.isCancelled { throw .cancelled(operation) }
    core.statistics.ringFull &+= 1
    let waiter = core.waiters.take(.space)
    waiter.need = need
    waiter.ticket = pool.queues.takeTicket()
    core.senders.append(waiter)
    unsafe state.pointee.credits = 0
    core.refuseSubmissions()
    core.interestChanged()
    let outcome = await waitToSend(waiter, core)
    if case .failed(let error) = outcome { throw error.met(by: operation) }
    try core.useGranted(need, for: operation)
    return core
  }

  /// What this task has left in the inlet goes first; and room that there is without waiting for others is in the credits then.
  func lookForRoom(_ need: Int = 1, _ core: QueueCore, _ operation: String) async throws(NetworkDeviceError) {
    core.takeSubmissions()
    if unsafe state.pointee.credits < need, core.senders.isEmpty { core.takeReleased() }
    if unsafe state.pointee.credits < need, core.lineIsEmpty, core.ringRoom >= need {
      // There is room, but the turn's budget is used up: goes on in the next one.
      await waitForNextTurn(core)
    }
    if let end = core.end { throw end.met(by: operation) }
  }
}
