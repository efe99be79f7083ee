public import LibeventConcurrency

/// How a back-end port asks its engine to be served in the next turn, for example when a descriptor became readable.
///
/// Handed to the port when the engine starts. Rung on the loop only; rung after the engine stopped it does nothing.
@safe public final class ServiceBell {
  // Proof: the engine that owns this memory clears the pointer (`disconnect`) before it goes; all on one loop.
  private var requests: UnsafeMutablePointer<EngineRequests>?
  /// The loop that the port lives on.
  public let loop: LoopExecutor

  init(loop: LoopExecutor, requests: UnsafeMutablePointer<EngineRequests>) {
    self.loop = loop
    unsafe self.requests = requests
  }

  /// Asks for the port's `serve` to be called before the loop sleeps.
  public func ring() {
    guard let requests = unsafe requests else { return }
    unsafe requests.pointee.pending = true
    loop.requestTurn()
  }

  /// Tells of what is no frame; it is passed on at the end of the next turn.
  public func report(_ event: PortEvent) {
    guard let requests = unsafe requests else { return }
    unsafe requests.pointee.events.append(event)
    ring()
  }

  func disconnect() { unsafe requests = nil }
}
