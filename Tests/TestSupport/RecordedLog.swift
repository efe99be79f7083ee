internal import Glibc
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
  /// Of its loggers.
  public let label: String
  /// Of all loggers that have been asked for. Another log with one of them that is held holds this one too.
  private let labels: Mutex<Set<String>>
  private let held: Atomic<Bool>
  private let pause: Duration

  /// Nothing yet.
  ///
  /// - Parameters:
  ///   - label: of its loggers.
  ///   - isHeld: the output takes nothing until `letGo`.
  ///   - pause: how long the output takes for each line.
  public init(label: String = "recorded", isHeld: Bool = false, pause: Duration = .zero) {
    self.label = label
    self.pause = pause
    labels = Mutex([label])
    held = Atomic(isHeld)
  }

  /// The output takes nothing.
  public var isHeld: Bool { held.load(ordering: .acquiring) }

  /// From now on the output takes what comes.
  public func letGo() { held.store(false, ordering: .releasing) }

  /// Everything so far.
  public var all: [Record] {
    LogLines.finish(labels.withLock { $0 })
    // An array of its own, made under the lock: one that shared its storage would be ordered by a reference count alone, which
    // the thread sanitizer does not see.
    return records.withLock { $0.map { $0 } }
  }
  /// Nothing has been written yet, whatever waits to be.
  public var isEmpty: Bool { lastWritten == nil }
  /// The words that were written last, whatever waits to be.
  public var lastWritten: String? { records.withLock { $0.last?.message } }
  /// The words alone.
  public var messages: [String] { all.map { $0.message } }
  /// The first line with these words.
  public func first(_ message: String) -> Record? { all.first { $0.message == message } }

  /// A logger that writes here, at every level.
  public var logger: Logger { logger(level: .trace) }

  /// A logger that writes here, at this level and above; of another label than the log's, if that is said.
  public func logger(level: Logger.Level, label: String? = nil) -> Logger {
    let label = label ?? self.label
    labels.withLock { _ = $0.insert(label) }
    var logger = Logger(label: label) { _ in Handler(log: self) }
    logger.logLevel = level
    return logger
  }

  private struct Handler: LogHandler {
    let log: RecordedLog
    var logLevel = Logger.Level.trace
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      while log.isHeld { usleep(1000) }
      if log.pause > .zero { usleep(useconds_t(log.pause / .microseconds(1))) }
      let metadata = (event.metadata ?? [:]).mapValues { "\($0)" }
      let record = Record(level: event.level, message: "\(event.message)", metadata: metadata)
      log.records.withLock { $0.append(record) }
    }
  }
}
