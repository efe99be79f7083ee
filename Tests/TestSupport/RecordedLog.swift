public import Logging
import Netdev
import Synchronization

/// What was logged, in order.
public final class RecordedLog: Sendable {
  /// A line.
  public struct Record: Sendable {
    /// How grave it is.
    public let level: Logger.Level
    /// What it says.
    public let message: String
    /// And of what.
    public let metadata: [String: String]
  }

  private let records = Mutex<[Record]>([])

  /// Nothing yet.
  public init() {}

  /// Everything so far.
  public var all: [Record] {
    // An array of its own, made under the lock: one that shared its storage would be ordered by a reference count alone, which
    // the thread sanitizer does not see.
    LogLines.finish()
    return records.withLock { $0.map { $0 } }
  }
  /// Nothing has been written yet, whatever waits to be.
  public var isEmpty: Bool { records.withLock { $0.isEmpty } }
  /// The words alone.
  public var messages: [String] { all.map { $0.message } }
  /// The first line with these words.
  public func first(_ message: String) -> Record? { all.first { $0.message == message } }

  /// A logger that writes here, at every level.
  public var logger: Logger { logger(level: .trace) }

  /// A logger that writes here, at this level and above.
  public func logger(level: Logger.Level) -> Logger {
    var logger = Logger(label: "recorded") { _ in Handler(log: self) }
    logger.logLevel = level
    return logger
  }

  private struct Handler: LogHandler {
    let log: RecordedLog
    var logLevel = Logger.Level.trace
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      let metadata = (event.metadata ?? [:]).mapValues { "\($0)" }
      let record = Record(level: event.level, message: "\(event.message)", metadata: metadata)
      log.records.withLock { $0.append(record) }
    }
  }
}
