public import Logging

/// The library's log, on standard error, a line each: by `Output`, so that a log that nobody reads holds no loop.
public struct LineLog: LogHandler {
  private let label: String
  /// Written with every line.
  public var metadata: Logger.Metadata = [:]
  /// From `info` on.
  public var logLevel = Logger.Level.info

  /// For `LoggingSystem.bootstrap`.
  public init(label: String) { self.label = label }

  /// Reads and writes one of the metadata.
  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  /// Writes a line.
  public func log(event: LogEvent) {
    var line = "\(label) \(event.level): \(event.message)"
    let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
    for (key, value) in all.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
    Output.errors.print(line)
  }
}
