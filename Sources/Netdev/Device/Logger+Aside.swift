internal import LibeventConcurrency
package import Logging
internal import Synchronization

/// Where the library's log is written: on a thread of its own, one line after the other, for all devices of the process.
///
/// What a program's log handler does is not known. The usual one writes to a pipe or a terminal, and whoever reads there may have
/// stopped: then no loop shall wait, neither for the handler nor for others that wait in it.
package enum LogLines {
  private struct State {
    var waiting = 0
    var lost = 0
  }

  private static let state = Mutex(State())
  private static let queue = BlockingQueue(thread: "netdev-log")
  /// Lines that wait for an output that takes nothing.
  static let most = 1000

  /// Adds a line; one that finds no room is counted.
  ///
  /// In a simulated world, which has one thread, it is written here.
  static func add(to logger: Logger, _ write: @escaping @Sendable () -> Void) {
    guard LoopWorlds.current == nil else { return write() }
    // What has been lost is told by the next line that finds room.
    let lost = state.withLock { state -> Int? in
      guard state.waiting < most else {
        state.lost += 1
        return nil
      }
      state.waiting += 1
      defer { state.lost = 0 }
      return state.lost
    }
    guard let lost else { return }
    queue.start {
      if lost > 0 { logger.warning("lines of the log were lost: its output took none", metadata: ["lines": "\(lost)"]) }
      write()
      state.withLock { $0.waiting -= 1 }
    }
  }

  /// Calls `body` when the lines of now have been written.
  static func whenWritten(_ body: @escaping @Sendable () -> Void) {
    guard LoopWorlds.current == nil else { return body() }
    queue.start(body)
  }

  /// Waits until the lines of now have been written. Not on a loop; on one it does not wait.
  package static func finish() { queue.finish() }
}

extension Logger {
  /// The same, whose lines are written aside: no loop waits for its output.
  package var aside: Logger {
    if handler is HandlerAside { return self }
    var logger = self
    logger.handler = HandlerAside(logger: self)
    return logger
  }
}

/// Hands lines on to where they are written.
private struct HandlerAside: LogHandler {
  private var logger: Logger

  init(logger: Logger) { self.logger = logger }

  var metadata: Logger.Metadata {
    get { logger.handler.metadata }
    set { logger.handler.metadata = newValue }
  }

  var logLevel: Logger.Level {
    get { logger.logLevel }
    set { logger.logLevel = newValue }
  }

  var metadataProvider: Logger.MetadataProvider? {
    get { logger.handler.metadataProvider }
    set { logger.handler.metadataProvider = newValue }
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { logger[metadataKey: key] }
    set { logger[metadataKey: key] = newValue }
  }

  func log(event: LogEvent) {
    var event = event
    // What a task provides is not there on another thread.
    if let provided = metadataProvider?.get(), !provided.isEmpty {
      event.metadata = provided.merging(event.metadata ?? [:]) { _, own in own }
    }
    LogLines.add(to: logger) { [handler = logger.handler, event] in handler.log(event: event) }
  }
}
