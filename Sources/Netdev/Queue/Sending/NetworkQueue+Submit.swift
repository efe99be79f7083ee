#if Testing
internal import CNetdevSystem
#endif

// Every path in: the inlined one takes a frame on the loop while there is room; all else goes the slow way.
extension NetworkQueue {
  /// Submits a packet and returns once it is published: the queue's loop has taken it and the device will see it at the
  /// latest at the end of the loop's turn.
  ///
  /// Elsewhere than on the loop it returns once the packet is in the queue's mailbox, in order: the loop is woken at most once
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
    try expectOpen()
    do throws(NetworkDeviceError) { try await submitSlowly(consume refused) } catch {
      throw error.broughtBack
    }
  }

  /// Elsewhere than on the loop: leaves the packet for the loop to take; returns it when it must go the long way.
  @usableFromInline nonisolated func submitFromOutside(_ packet: consuming Packet) -> Packet? {
    isHere ? packet : mailbox.offer(consume packet)
  }

  /// Elsewhere than on the loop: whoever comes to a queue that has ended is told at once, and needs no loop for that.
  @usableFromInline nonisolated func expectOpen() throws(NetworkDeviceError) {
    if !isHere, let end = mailbox.end { throw end.met(by: "submit") }
  }

  /// On the loop: the packet can be taken as it is, now, and lies in one buffer.
  @inlinable nonisolated func canAccept(_ packet: borrowing Packet) -> Bool { hasRoom(for: 1) && isSimple(packet) }

  /// On the loop: the packet can be taken as it is when there is room, and lies in one buffer.
  @inlinable nonisolated func isSimple(_ packet: borrowing Packet) -> Bool {
    let record = unsafe packet.record
    return unsafe frames.pointee.owns(record) && record.pointee.segments == 1
      && record.pointee.frameLength <= frames.pointee.maximumFrame
  }

  /// On the loop: takes a packet that lies in one buffer; its reference is the driver's now.
  @inlinable nonisolated func acceptSingle(_ packet: consuming Packet, cookie: UInt32 = 0) {
    unsafe QueueFrames.acceptSingle(consume packet, cookie: cookie, to: frames)
  }

  /// On the loop: takes the packet; its reference is the driver's now.
  nonisolated func accept(_ packet: consuming Packet, cookie: UInt32 = 0) {
    unsafe QueueFrames.accept(consume packet, cookie: cookie, to: frames)
  }

  @usableFromInline func submitSlowly(_ packet: consuming Packet) async throws(NetworkDeviceError) {
    accept(try await admit(consume packet, for: "submit"))
  }
}

// MARK: - Bursts

extension NetworkQueue {
  /// Submits all frames of a burst and returns once they are published.
  ///
  /// Suspends while the ring is full. One call of the driver a burst; at most one doorbell. Deadline and cancellation: as
  /// `submit(_:)` for a packet.
  ///
  /// - Throws: as `submit(_:)` for a packet; frames not yet published are then dropped. A frame that is too long for this
  ///   device does not keep the others from being submitted: it throws when they are. One of `makeBurst` that lacks the VLAN tags
  ///   which its length takes is found out later, and counts among `packetsFailed`.
  @inlinable
  nonisolated(nonsending)
    public func submit(_ burst: consuming PacketBurst) async throws(NetworkDeviceError)
  {
    if isHere, hasRoom(for: burst.count), takesAsItLies(burst) {
      publish(burst)
    } else {
      try expectOpen()
      do throws(NetworkDeviceError) { try await submitSlowly(burst) } catch { throw error.broughtBack }
    }
  }

  @inlinable nonisolated func hasRoom(for count: Int) -> Bool {
    unsafe frames.pointee.credits >= count
  }

  /// The burst's frames lie in this queue's pool, whichever of its devices received them, and none is longer than a frame
  /// of this queue's may be.
  @inlinable nonisolated func takesAsItLies(_ burst: borrowing PacketBurst) -> Bool {
    unsafe burst.queue.records == records && burst.queue.maximumFrameLength <= maximumFrameLength
  }

  /// On the loop, with room for all, which lie in this queue's pool: publishes in one call.
  @usableFromInline nonisolated func publish(_ burst: consuming PacketBurst) {
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    guard unsafe burst.queue === self else { return publishOfAnother(burst) }
    let block = unsafe burst.takeBlock()
    unsafe frames.pointee.withTurn { unsafe $0.publishBurst(block) }
    unsafe block.pointee.count = 0
    unsafe recycle(block)
  }

  /// Publishes the frames of a burst whose block belongs to another queue, and goes back there with the empty burst.
  private nonisolated func publishOfAnother(_ burst: consuming PacketBurst) {
    let block = unsafe burst.block
    unsafe frames.pointee.withTurn { unsafe $0.publishBurst(block) }
    unsafe block.pointee.count = 0
    _ = consume burst
  }

  @usableFromInline func submitSlowly(_ burst: consuming PacketBurst) async throws(NetworkDeviceError) {
    // Whatever this throws, the burst goes and drops its frames.
    guard takesAsItLies(burst) else {
      return try await burst.takeAll { (packet: consuming Packet) async throws(NetworkDeviceError) in
        try await submitSlowly(packet)
      }
    }
    try await reserve(burst.count, for: "submit")
    publish(burst)
  }
}
