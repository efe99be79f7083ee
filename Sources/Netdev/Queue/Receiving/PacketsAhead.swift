internal import CNetdevSystem

/// Packets that an iterator outside the queue's loop has been given ahead, a burst at a time: one hop for all of them.
///
/// They belong to the queue: what the iterator has not handed out when it goes returns to the front of what is at hand.
@usableFromInline final class PacketsAhead {
  private let queue: NetworkQueue
  // One task at a time has the iterator that this is of, and nothing below comes back here while it is at it.
  @safe @exclusivity(unchecked) private var burst: PacketBurst?
  @safe @exclusivity(unchecked) private var position = 0

  init(queue: NetworkQueue) { self.queue = queue }

  /// The next one that is here; on any thread, one at a time.
  @usableFromInline func take() -> Packet? {
    guard burst != nil else { return nil }
    let packet = burst?.takeFirst(&position)
    if packet == nil { burst = nil }
    return packet
  }

  /// Fetches a burst; nil at the end or when the task is cancelled.
  @usableFromInline nonisolated(nonsending) func fetch() async -> Packet? {
    burst = await queue.receiveAhead()
    position = 0
    return take()
  }

  deinit {
    guard let burst = burst.take() else { return }
    queue.putBack(burst, from: position)
  }
}

extension NetworkQueue {
  /// For a consumer outside: frames at hand, this one's share of them if several wait.
  func receiveAhead() async -> sending PacketBurst? {
    guard let outcome = await fetch(.ahead), case .block(let block) = outcome else { return nil }
    turn.deferSubmissions()
    return unsafe PacketBurst(queue: self, block: block)
  }

  /// From any thread: the frames of a burst from `position` on are the next to be received again. Once the queue has ended
  /// they are dropped.
  nonisolated func putBack(_ burst: consuming PacketBurst, from position: Int) {
    burst.dropFirst(position)
    guard burst.count > 0 else { return }
    let block = unsafe burst.takeBlock()
    if mailbox.giveBack(block: UInt(bitPattern: block)) { return }
    mailbox.noteDropped(unsafe block.pointee.count)
    _ = unsafe PacketBurst(queue: self, block: block)
  }
}

extension QueueTurn {
  /// Takes back what consumers outside were given and did not use.
  func takeReturned() {
    for address in mailbox.takeReturned() {
      guard let block = unsafe UnsafeMutablePointer<BurstBlock>(bitPattern: address) else { continue }
      if isOpen { unsafe putBack(block) } else { unsafe drop(block) }
      unsafe recycle(block)
    }
  }

  /// Nobody will receive these frames any more.
  private func drop(_ block: UnsafeMutablePointer<BurstBlock>) {
    mailbox.noteDropped(unsafe block.pointee.count)
    for position in unsafe 0..<block.pointee.count { releaseBuffer(unsafe block.pointee.entries[position].slot) }
  }

  /// Puts received frames before those at hand, and lets whoever waits have them.
  private func putBack(_ block: UnsafeMutablePointer<BurstBlock>) {
    let ready = unsafe frames.pointee.ready
    let left = readyCount
    let count = unsafe block.pointee.count
    let joined = unsafe BurstBlock.make(capacity: max(BurstBlock.capacity, count + left))
    unsafe joined.pointee.entries.update(from: block.pointee.entries, count: count)
    unsafe joined.pointee.entries.advanced(by: count).update(
      from: ready.pointee.entries.advanced(by: frames.pointee.readyHead), count: left)
    unsafe joined.pointee.count = count + left
    #if Testing
    if unsafe netdev_fault_is_planted("returned-behind") {
      let rest = unsafe ready.pointee.entries.advanced(by: frames.pointee.readyHead)
      unsafe joined.pointee.entries.update(from: rest, count: left)
      unsafe joined.pointee.entries.advanced(by: left).update(from: block.pointee.entries, count: count)
    }
    #endif
    unsafe frames.pointee.ready = joined
    unsafe frames.pointee.readyHead = 0
    unsafe BurstBlock.free(ready)
    unsafe block.pointee.count = 0
    serveConsumers()
  }
}
