// Reception by the burst: the fast path.
extension NetworkQueue {
  /// Takes a burst of received frames, up to 64; suspends until there is at least one.
  ///
  /// Deadline: none. Cancellation ends a wait at once; what is at hand in this turn of the loop may still be taken.
  ///
  /// - Returns: nil when the queue has ended or the task is cancelled.
  @inlinable nonisolated(nonsending) public func receiveBurst() async -> PacketBurst? {
    if isHere, let burst = takeReadyBurst() { return burst }
    return await receiveBurstSlowly()
  }

  /// Takes a burst of frames that are at hand; nil when there are none, at once.
  public func receiveBurstIfAny() -> sending PacketBurst? {
    CallAtOnce.begin()
    defer { CallAtOnce.end() }
    turn.takeFromOutside()
    return takeReadyBurst()
  }

  @usableFromInline nonisolated func takeReadyBurst() -> PacketBurst? {
    let block: UnsafeMutablePointer<BurstBlock>?? = unsafe frames.pointee.withTurn { turn in
      unsafe turn.consumers.isEmpty && (turn.readyCount > 0 || turn.pump()) ? turn.takeReadyBlock() : nil
    }
    guard case let block?? = unsafe block else { return nil }
    return unsafe PacketBurst(queue: self, block: block)
  }

  @usableFromInline func receiveBurstSlowly() async -> sending PacketBurst? {
    guard let outcome = await fetch(.burst) else { return nil }
    guard case .block(let block) = outcome else { return nil }
    return unsafe PacketBurst(queue: self, block: block)
  }
}
