import Foundation
import Synchronization

/// The built EchoServer in a process of its own.
final class RunningProgram: Sendable {
  struct End: Sendable {
    let status: CInt
    let output: String
    let errors: String
  }

  /// Beside the test bundle, where the package manager puts executables.
  static let path = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: "EchoServer")

  private let process: Mutex<Process>
  private let identifier: pid_t
  private let output = Collector()
  private let errors = Collector()

  convenience init(_ arguments: [String], before: [String] = []) throws {
    try self.init(command: before + [Self.path.path] + arguments)
  }

  init(command: [String]) throws {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = command
    process.standardOutput = output.pipe
    process.standardError = errors.pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    identifier = process.processIdentifier
    self.process = Mutex(process)
  }

  func waitForOutput(_ text: String) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while !output.text.contains(text) {
      guard ContinuousClock.now < deadline else { throw CocoaError(.fileReadUnknown) }
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  /// Sends a signal, if there is one, and waits for the end.
  func end(with signal: CInt?) async -> End {
    if let signal { kill(identifier, signal) }
    while process.withLock({ $0.isRunning }) { try? await Task.sleep(for: .milliseconds(5)) }
    let status = process.withLock { $0.terminationStatus }
    return End(status: status, output: output.finish(), errors: errors.finish())
  }

  deinit { if process.withLock({ $0.isRunning }) { kill(identifier, SIGKILL) } }
}

/// Everything that comes out of a pipe.
private final class Collector: Sendable {
  let pipe = Pipe()
  private let data = Mutex(Data())

  init() {
    pipe.fileHandleForReading.readabilityHandler = { [weak self] handle in
      let new = handle.availableData
      self?.data.withLock { $0.append(new) }
    }
  }

  var text: String { data.withLock { String(decoding: $0, as: UTF8.self) } }

  func finish() -> String {
    pipe.fileHandleForReading.readabilityHandler = nil
    if let rest = try? pipe.fileHandleForReading.readToEnd() { data.withLock { $0.append(rest) } }
    return text
  }
}
