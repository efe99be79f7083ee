internal import LibeventConcurrency
internal import Logging
internal import Synchronization

/// Lines of the log, written one after the other on a thread that is there while there are some.
///
/// What a program's log handler does is not known. The usual one writes to a pipe or a terminal, and whoever reads there may have
/// stopped: then no loop shall wait, neither for the handler nor for others that wait in it. Loggers of one label share lines, so that
/// what several modules say of a device keeps its order; those of another label do not wait for them.
package final class LogLines: Sendable {
  private struct State {
    var waiting = 0
    var lost = 0
    /// Somebody has waited in vain: until a line is written, nobody does.
    var isBehind = false
  }

  private let state = Mutex(State())
  private let queue = BlockingQueue(on: threads)
  /// So many outputs may take nothing, each of which holds a thread, before lines of other labels wait for them.
  static let mostThreads = 32
  private static let threads = CallThreads("netdev-log", most: mostThreads)
  /// Lines of a label that wait for an output that takes nothing.
  static let most = 1000
  /// Of all labels.
  static let mostOfAll = 64_000
  private static let ofAll = Atomic(0)

  private init() {}

  // MARK: One for each label

  private struct Reference {
    weak var lines: LogLines?
  }

  private static let all = Mutex<[String: Reference]>([:])

  /// Those of the loggers with this label.
  static func ofLabel(_ label: String) -> LogLines {
    all.withLock { all in
      if let lines = all[label]?.lines { return lines }
      let lines = LogLines()
      all = all.filter { $0.value.lines != nil }
      all[label] = Reference(lines: lines)
      return lines
    }
  }

  /// Waits until the lines of now have been written of loggers with one of these labels. Not on a loop; on one it does not wait.
  package static func finish(_ labels: Set<String>) {
    for lines in all.withLock({ all in labels.compactMap { all[$0]?.lines } }) { lines.queue.finish() }
  }

  // MARK: Lines

  /// Adds a line; one that finds no room is counted, and told by the next one that finds some.
  ///
  /// In a simulated world, which has one thread, it is written here.
  func add(_ event: LogEvent, to logger: Logger) {
    guard LoopWorlds.current == nil else { return logger.handler.log(event: event) }
    let lost = state.withLock { state -> Int? in
      guard state.waiting < Self.most, Self.ofAll.load(ordering: .relaxed) < Self.mostOfAll else {
        state.lost += 1
        return nil
      }
      state.waiting += 1
      Self.ofAll.add(1, ordering: .relaxed)
      defer { state.lost = 0 }
      return state.lost
    }
    guard let lost else { return }
    queue.start { [self] in
      // Whatever level this logger has: the lines may have been those of another.
      if lost > 0 {
        logger.handler.log(
          event: LogEvent(
            level: .warning, message: "lines of the log were lost: its output took none",
            metadata: ["lines": "\(lost)"],
            source: event.source, file: event.file, function: event.function, line: event.line))
      }
      logger.handler.log(event: event)
      state.withLock { state in
        state.waiting -= 1
        state.isBehind = false
      }
      Self.ofAll.subtract(1, ordering: .relaxed)
    }
  }

  /// Waits, on a loop, until the lines of now have been written, but no longer than `limit`; and not at all while an earlier wait was
  /// in vain.
  func written(on loop: LoopExecutor, within limit: Duration) async {
    guard LoopWorlds.current == nil, state.withLock({ $0.waiting > 0 && !$0.isBehind }) else { return }
    let promise = LoopPromise<Void>(loop: loop)
    // Who waits takes it away again: behind an output that takes nothing it would keep the loop.
    let kept = Kept(promise)
    queue.start { kept.take()?.fulfil(()) }
    if case .timedOut = await promise.value(within: limit) { state.withLock { $0.isBehind = $0.waiting > 0 } }
    _ = kept.take()
  }

  private final class Kept: Sendable {
    private let promise: Mutex<LoopPromise<Void>?>
    init(_ promise: LoopPromise<Void>) { self.promise = Mutex(promise) }
    func take() -> LoopPromise<Void>? { promise.withLock { $0.take() } }
  }
}
