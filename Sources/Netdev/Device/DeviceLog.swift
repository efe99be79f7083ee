internal import LibeventConcurrency
internal import Logging
internal import Synchronization

/// Where a device's control plane logs: with the device's name, once it is known. What was asked, what came of it and how long
/// it took is at level debug, the link's changes are notices. Whether a failure is worth more is for those to say who get the
/// error. No packet goes through here.
final class DeviceLog: Sendable {
  private let logger: Logger
  private let lines: LogLines
  private let name = Mutex("")

  init(_ logger: Logger) {
    self.logger = logger.aside
    lines = LogLines.ofLabel(logger.label)
  }

  /// Waits until what was said has been written, or as long as `limit`. On a loop.
  func written(on loop: LoopExecutor, within limit: Duration) async { await lines.written(on: loop, within: limit) }

  /// The driver has said who it is.
  func setName(_ text: String) { name.withLock { $0 = text } }

  func write(_ level: Logger.Level, _ message: Logger.Message, _ more: Logger.Metadata = [:]) {
    guard logger.logLevel <= level else { return }
    var metadata = more
    let name = name.withLock { $0 }
    if !name.isEmpty { metadata["device"] = "\(name)" }
    logger.log(level: level, message, metadata: metadata)
  }

  /// A step that began at `start` of the loop's clock is over.
  func write(
    step: String, since start: UInt64, _ loop: LoopExecutor, _ more: Logger.Metadata, _ error: NetworkDeviceError?
  ) {
    var metadata = more
    metadata["took"] = "\(Duration.nanoseconds(Int64(clamping: loop.now &- start)).inUnits)"
    if let error { metadata["error"] = "\(error)" }
    write(.debug, error == nil ? "\(step)" : "\(step) failed", metadata)
  }

  func write(_ change: LinkChange) {
    switch change {
    case .down(let cause): write(.notice, "link down", ["cause": "\(cause)"])
    case .up: write(.notice, "link up")
    }
  }
}
