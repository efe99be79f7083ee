internal import CTrafficSupport
import Foundation
import Glibc
import Synchronization

/// A thread in a network namespace of its own: what is run on it belongs there, and the namespace goes with the last
/// descriptor that was opened in it. TAP interfaces made there disturb nobody and nothing is left.
public final class NamespaceThread: Sendable {
  /// Whether this process may make namespaces and TAP interfaces. In CI the tests run rather than being skipped.
  public static let isAvailable =
    unsafe ProcessInfo.processInfo.environment["CI"] == "true"
    || (geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0)

  private let work = JobQueue()

  /// Starts the thread; what it cannot enter, `run` reports.
  public init() {
    let work = work
    Thread.detachNewThread {
      let entered = test_new_network()
      while let job = work.next() { job(entered) }
    }
  }

  deinit { work.finish() }

  /// Runs `body` on the thread.
  public func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      work.add { entered in
        guard entered == 0 else {
          continuation.resume(throwing: POSIXError(POSIXErrorCode(rawValue: -entered) ?? .EPERM))
          return
        }
        continuation.resume(with: Swift.Result { try body() })
      }
    }
  }

  /// Where the kernel shows the namespace, for as long as the thread is there: what `ip link set … netns` takes.
  public var path: String {
    get async throws {
      let thread = try await run { try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/thread-self") }
      return "/proc/\(thread)/ns/net"
    }
  }

  /// The number of an interface of the namespace; 0 where there is none of this name.
  public func interfaceNumber(_ name: String) async throws -> UInt32 { try await run { unsafe if_nametoindex(name) } }

  /// Keeps the thread on one processor.
  public func pin(to cpu: Int) async throws {
    let thread = try await run {
      try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/thread-self").split(separator: "/").last ?? ""
    }
    try await shell("taskset -p -c \(cpu) \(thread) > /dev/null")
  }

  /// Runs a shell command in the namespace and throws unless it succeeds.
  public func shell(_ command: String) async throws {
    let status = try await run { unsafe test_shell(command) }
    guard status == 0 else { throw CommandFailed(command: command, status: status) }
  }

  /// Sends datagrams from the namespace and checks the answers.
  public func exchange(
    with address: String, port: UInt16 = 7, flows: Int = 1, window: Int = 16, total: Int, sizes: ClosedRange<Int>
  ) async throws -> Exchange {
    try await run {
      blockingExchange(with: address, port: port, flows: flows, window: window, total: total, sizes: sizes)
    }
  }
}

/// Sends datagrams to 127.0.0.1 of this host and checks the answers, on a thread of its own.
public func hostExchange(
  port: UInt16, flows: Int = 1, window: Int = 16, total: Int, sizes: ClosedRange<Int>
) async throws -> Exchange {
  await withCheckedContinuation { continuation in
    Thread.detachNewThread {
      continuation.resume(
        returning: blockingExchange(
          with: "127.0.0.1", port: port, flows: flows, window: window, total: total, sizes: sizes))
    }
  }
}

private func blockingExchange(
  with address: String, port: UInt16, flows: Int, window: Int, total: Int, sizes: ClosedRange<Int>
) -> Exchange {
  var result = test_window_result()
  let status = unsafe address.withCString { address in
    var wanted = unsafe test_window(
      address: address, port: port, flows: CInt(flows), window: CInt(window), total: total,
      smallest: CInt(sizes.lowerBound), largest: CInt(sizes.upperBound), patience_milliseconds: 20_000)
    return unsafe test_udp_window(&wanted, &result)
  }
  return Exchange(
    isComplete: status == 0, sent: result.sent, right: result.right, early: result.early, wrong: result.wrong,
    error: result.error)
}

/// What came of an exchange of datagrams.
public struct Exchange: Sendable {
  /// Every datagram came back, unchanged and in the order of its flow.
  public let isComplete: Bool
  /// Datagrams sent.
  public let sent: Int
  /// Datagrams that came back unchanged.
  public let right: Int
  /// Those of them that came before an older one of their flow.
  public let early: Int
  /// Answers that were none of these: changed, doubled or another flow's.
  public let wrong: Int
  /// errno of a socket call that failed, or 0.
  public let error: CInt
}

/// A shell command that did not succeed.
public struct CommandFailed: Error {
  /// The command.
  public let command: String
  /// Its exit status.
  public let status: CInt
}

/// Jobs for one thread, in order.
private final class JobQueue: @unchecked Sendable {
  // Proof of Sendable: everything is behind the condition's lock.
  private let condition = NSCondition()
  private var jobs: [@Sendable (CInt) -> Void] = []
  private var isFinished = false

  func add(_ job: @escaping @Sendable (CInt) -> Void) {
    condition.lock()
    jobs.append(job)
    condition.signal()
    condition.unlock()
  }

  func finish() {
    condition.lock()
    isFinished = true
    condition.signal()
    condition.unlock()
  }

  func next() -> (@Sendable (CInt) -> Void)? {
    condition.lock()
    defer { condition.unlock() }
    while jobs.isEmpty, !isFinished { condition.wait() }
    return jobs.isEmpty ? nil : jobs.removeFirst()
  }
}
