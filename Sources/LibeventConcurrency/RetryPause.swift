/// The time before something that the system refused is tried again, where no event tells when it will go: a millisecond, and
/// twice as long after each refusal that follows another, up to a second. On a loop.
///
/// Without it a descriptor that is ready and cannot be used (no memory, a full queue below) would keep the loop awake.
package final class RetryPause {
  private let timer: LoopTimer
  /// Refusals in a row.
  package private(set) var refusals = 0

  /// The longest pause is a second, as near as a power of two comes, where `begin` is told nothing else.
  package static let longest = 10

  /// - Parameter onEnd: called on the loop when a pause is over.
  package init(loop: LoopExecutor, onEnd: @escaping () -> Void) throws(LoopError) {
    timer = try loop.makeTimer(handler: onEnd)
  }

  /// Begins a pause; `onEnd` follows.
  ///
  /// - Parameter bound: how often the pause may have doubled.
  package func begin(doubled bound: Int = longest) {
    timer.schedule(after: .milliseconds(1 << min(refusals, bound)))
    noteRefusal()
  }

  /// A refusal after which something else than a pause tells when to try again.
  package func noteRefusal() { refusals = min(refusals + 1, Int(UInt16.max)) }

  /// What was refused before has gone well.
  package func succeeded() { refusals = 0 }

  /// Ends it: `onEnd` is not called any more.
  package func cancel() { timer.cancel() }
}

/// Wake-ups in a row for nothing: the descriptor said that it was ready, and was not.
///
/// Once after each frame is as it should be. A vain wake is no refusal, and anybody can cause one (a datagram whose checksum turns
/// out wrong when it is read): after some of them the descriptor is left alone for a while, and the pauses stay short.
package struct VainWakes {
  private static let patience = 16
  /// How often a pause doubles: up to 32 ms.
  package static let doublings = 5

  private var inARow = 0

  package init() {}

  /// Another one.
  package mutating func note() { inARow = min(inARow + 1, Self.patience + 1) }

  /// Whether the descriptor is to be left alone now.
  package var areTooMany: Bool { inARow > Self.patience }

  /// After a pause: one more, and it is left alone again.
  package mutating func forgiveLast() { inARow = min(inARow, Self.patience) }

  /// It was ready indeed.
  @inline(__always) package mutating func succeeded() { inARow = 0 }
}
