import Foundation
import Glibc
import Synchronization

/// A built program in a process of its own, started with posix_spawn: its output is collected by two threads.
final class RunningProgram: Sendable {
  struct End: Sendable {
    let status: CInt
    let output: String
    let errors: String

    /// The errors but for warnings that a loop was held, which a busy machine brings about by itself.
    var complaints: [Substring] { errors.split(separator: "\n").filter { !$0.contains("a job held the loop") } }

    /// The program's own lines among the errors, which are none of the library's log.
    func lines(of program: String) -> [Substring] {
      errors.split(separator: "\n").filter { $0.hasPrefix("\(program): ") }
    }
  }

  /// Beside the test executable, where the package manager puts executables.
  static func url(of program: String) -> URL {
    URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(path: program)
  }

  /// The echo server.
  static let path = url(of: "EchoServer")

  let identifier: pid_t
  private let output: Collector
  private let errors: Collector
  private let isReaped = Atomic<Bool>(false)

  convenience init(
    _ arguments: [String], before: [String] = [], program: String = "EchoServer"
  ) throws {
    try self.init(command: before + [Self.url(of: program).path] + arguments)
  }

  /// - Parameter standardOutput: a descriptor to print to instead of one whose text is collected.
  init(command: [String], standardOutput: CInt? = nil) throws {
    let output = try Collector()
    let errors = try Collector()
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, standardOutput ?? output.writeEnd, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, errors.writeEnd, 2)
    var arguments = unsafe command.map { unsafe strdup($0) } + [nil]
    defer { unsafe arguments.forEach { unsafe free($0) } }
    var identifier: pid_t = 0
    let result = unsafe posix_spawnp(&identifier, command[0], &actions, nil, &arguments, environ)
    output.closeWriteEnd()
    errors.closeWriteEnd()
    guard result == 0 else { throw POSIXError(POSIXErrorCode(rawValue: result) ?? .EIO) }
    self.identifier = identifier
    self.output = output
    self.errors = errors
  }

  /// What it has printed so far.
  var printed: String { output.text }
  /// Its errors so far.
  var complained: String { errors.text }

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
    var status: CInt = 0
    while unsafe waitpid(identifier, &status, WNOHANG) == 0 { try? await Task.sleep(for: .milliseconds(5)) }
    isReaped.store(true, ordering: .releasing)
    while !output.isFinished || !errors.isFinished { try? await Task.sleep(for: .milliseconds(5)) }
    // The exit status is in the second byte; a signal's number, if that was the end, in the first.
    return End(status: status & 0x7f == 0 ? status >> 8 & 0xff : -1, output: output.text, errors: errors.text)
  }

  deinit {
    guard !isReaped.load(ordering: .acquiring) else { return }
    kill(identifier, SIGKILL)
    waitpid(identifier, nil, 0)
  }
}

/// Everything that comes out of a pipe, read by a thread until its end.
private final class Collector: Sendable {
  let writeEnd: CInt
  private let state: Mutex<(data: [UInt8], isFinished: Bool)>

  init() throws {
    var ends: (CInt, CInt) = (0, 0)
    let result = unsafe withUnsafeMutablePointer(to: &ends) { pointer in
      unsafe pointer.withMemoryRebound(to: CInt.self, capacity: 2) { unsafe pipe($0) }
    }
    guard result == 0 else { throw POSIXError(.EMFILE) }
    for end in [ends.0, ends.1] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let readEnd = ends.0
    writeEnd = ends.1
    state = Mutex(([], false))
    Thread.detachNewThread { [self] in
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = unsafe read(readEnd, &buffer, buffer.count)
        guard count > 0 else { break }
        let new = Array(buffer[..<count])
        state.withLock { $0.data += new }
      }
      close(readEnd)
      state.withLock { $0.isFinished = true }
    }
  }

  func closeWriteEnd() { close(writeEnd) }

  var text: String { state.withLock { String(decoding: $0.data, as: UTF8.self) } }
  var isFinished: Bool { state.withLock { $0.isFinished } }
}
