import Logging
import Synchronization

/// What was logged.
final class Lines: Sendable {
  private let lines = Mutex<[String]>([])
  // An array of its own, made under the lock: one that shared its storage would be ordered by a reference count alone, which
  // the thread sanitizer does not see.
  var all: [String] { lines.withLock { $0.map { $0 } } }
  fileprivate func append(_ line: String) { lines.withLock { $0.append(line) } }

  /// A logger that writes here.
  func logger(level: Logger.Level) -> Logger {
    var logger = Logger(label: "lines") { _ in Recorder(lines: self) }
    logger.logLevel = level
    return logger
  }
}

private struct Recorder: LogHandler {
  let lines: Lines
  var logLevel = Logger.Level.trace
  var metadata: Logger.Metadata = [:]

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let descriptors = event.metadata?["fds"].map { " fds=\($0)" } ?? ""
    let cause = event.metadata?["cause"].map { " cause=\($0)" } ?? ""
    lines.append("\(event.message)\(descriptors)\(cause)")
  }
}
