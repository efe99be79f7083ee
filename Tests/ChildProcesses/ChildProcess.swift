import Foundation
public import Glibc
import Synchronization

/// A program in a process of its own, started with posix_spawn: its input is a pipe, its output is collected by a thread.
public final class ChildProcess: Sendable {
  /// The process' number.
  public let identifier: pid_t
  private let input: CInt
  private let collected: Mutex<(data: [UInt8], isFinished: Bool)>
  private let isReaped = Atomic<Bool>(false)

  /// Starts a command: the program's name, looked for in PATH, and its arguments.
  public init(_ command: [String]) throws {
    let (inputRead, inputWrite) = try Self.makePipe()
    let (outputRead, outputWrite) = try Self.makePipe()
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_adddup2(&actions, inputRead, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, outputWrite, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, outputWrite, 2)
    // Threads of the runtime's pool take no signals, and what they start would take none either.
    var (attributes, none) = (posix_spawnattr_t(), sigset_t())
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    unsafe sigemptyset(&none)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var arguments = unsafe command.map { unsafe strdup($0) } + [nil]
    defer { unsafe arguments.forEach { unsafe free($0) } }
    var identifier: pid_t = 0
    let result = unsafe posix_spawnp(&identifier, command[0], &actions, &attributes, &arguments, environ)
    close(inputRead)
    close(outputWrite)
    guard result == 0 else {
      close(inputWrite)
      close(outputRead)
      throw POSIXError(POSIXErrorCode(rawValue: result) ?? .EIO)
    }
    self.identifier = identifier
    input = inputWrite
    collected = Mutex(([], false))
    Thread.detachNewThread { [self] in
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = unsafe read(outputRead, &buffer, buffer.count)
        guard count > 0 else { break }
        let new = Array(buffer[..<count])
        collected.withLock { $0.data += new }
      }
      close(outputRead)
      collected.withLock { $0.isFinished = true }
    }
  }

  private static func makePipe() throws -> (read: CInt, write: CInt) {
    var ends: [CInt] = [-1, -1]
    guard unsafe pipe(&ends) == 0 else { throw POSIXError(.EMFILE) }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  /// What it has written so far, to both of its outputs.
  public var output: String { collected.withLock { String(decoding: $0.data, as: UTF8.self) } }

  /// Types a line.
  public func type(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = unsafe Glibc.write(input, bytes, bytes.count)
  }

  /// True once the process has ended; it is reaped then.
  public var hasEnded: Bool {
    if isReaped.load(ordering: .acquiring) { return true }
    guard waitpid(identifier, nil, WNOHANG) != 0 else { return false }
    isReaped.store(true, ordering: .releasing)
    return true
  }

  /// Sends a signal; a process that has ended gets none.
  public func signal(_ number: CInt) { if !hasEnded { kill(identifier, number) } }

  /// Waits for the end; kills the process when the limit passes.
  public func waitForEnd(within limit: Duration) async {
    let deadline = ContinuousClock.now + limit
    while !hasEnded {
      if ContinuousClock.now > deadline { signal(SIGKILL) }
      try? await Task.sleep(for: .milliseconds(2))
    }
  }

  deinit {
    if !isReaped.load(ordering: .acquiring) {
      kill(identifier, SIGKILL)
      waitpid(identifier, nil, 0)
    }
    close(input)
  }
}
