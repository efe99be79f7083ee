public import LibeventConcurrency

/// How a back-end port asks its engine to be served in the next turn, for example when a descriptor became readable.
///
/// Handed to the port when the engine starts. Rung on the loop only; rung after the engine stopped it does nothing.
@safe public final class ServiceBell {
  // Proof: the engine that set it clears it (`disconnect`) before its memory goes; all on one loop.
  private var pending: UnsafeMutablePointer<Bool>?
  /// The loop that the port lives on.
  public let loop: LoopExecutor

  init(loop: LoopExecutor, pending: UnsafeMutablePointer<Bool>) {
    self.loop = loop
    unsafe self.pending = pending
  }

  /// Asks for the port's `serve` to be called before the loop sleeps.
  public func ring() {
    guard let pending = unsafe pending else { return }
    unsafe pending.pointee = true
    loop.requestTurn()
  }

  func disconnect() { unsafe pending = nil }
}
