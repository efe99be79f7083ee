/// An actor on a loop, for code that must run there and has no actor of its own: set-up, and tests.
public actor LoopScope {
  private nonisolated let loop: LoopExecutor

  /// A scope on a loop.
  public init(_ loop: LoopExecutor) { self.loop = loop }

  /// The loop's executor.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  /// Runs `body` on the loop. To come there has no deadline, and cancellation does not end it: the loop runs it in its turn.
  public func run<Result: Sendable, Failure: Error>(
    _ body: @Sendable (isolated LoopScope) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try body(self)
  }
}
