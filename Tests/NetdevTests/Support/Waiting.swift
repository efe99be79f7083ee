import LibeventConcurrency
import Netdev
import Synchronization
import Testing

/// Waits for a condition, with a limit far beyond what a loaded machine needs.
func eventually(
  _ what: Comment, within limit: Duration = .seconds(60), sourceLocation: SourceLocation = #_sourceLocation,
  _ condition: () async -> Bool
) async throws {
  let clock = ContinuousClock()
  let deadline = clock.now + limit
  var looks = 0
  while await !condition() {
    if clock.now > deadline {
      Issue.record(what, sourceLocation: sourceLocation)
      throw CancellationError()
    }
    looks += 1
    // Quick at first; then the threads of what is waited for get the processor.
    if looks < 100 { await Task.yield() } else { try await Task.sleep(for: .milliseconds(1)) }
  }
}

/// Lets a queue's loop turn at least so often.
func turn(_ queue: NetworkQueue, times: UInt64) async {
  let scope = LoopScope(queue.loop)
  let start = await scope.run { _ in queue.loop.turn }
  while await scope.run({ _ in queue.loop.turn }) - start < times {}
}

/// What a task that was started came to, readable from outside while it runs.
final class Outcome: Sendable {
  private let state = Mutex<(finished: Int, errors: [NetworkDeviceError])>((0, []))
  var finished: Int { state.withLock { $0.finished } }
  var errors: [NetworkDeviceError] { state.withLock { $0.errors } }

  func record(_ body: () async throws -> Void) async {
    do {
      try await body()
      state.withLock { $0.finished += 1 }
    } catch {
      state.withLock {
        $0.finished += 1
        $0.errors.append(error as? NetworkDeviceError ?? NetworkDeviceError(.system, "\(error)"))
      }
    }
  }
}

/// Bytes that say which packet they are.
func numbered(_ number: Int, count: Int = 64) -> [UInt8] {
  (0..<count).map { $0 < 8 ? UInt8(truncatingIfNeeded: number >> ($0 * 8)) : UInt8(truncatingIfNeeded: number &+ $0) }
}

/// How often each number was seen.
final class Tally: Sendable {
  private let counts: Mutex<[Int]>
  init(_ size: Int) { counts = Mutex([Int](repeating: 0, count: size)) }
  func add(_ number: Int) { counts.withLock { $0[number] += 1 } }
  var total: Int { counts.withLock { $0.reduce(0, +) } }
  var allSeen: Bool { counts.withLock { $0.allSatisfy { $0 >= 1 } } }
  var allOnce: Bool { counts.withLock { $0.allSatisfy { $0 == 1 } } }
}

extension Packet {
  /// The number that `numbered` put in.
  var number: Int {
    withBytes { bytes in (0..<8).reduce(0) { $0 | Int(bytes.unsafeLoadUnchecked($1)) << ($1 * 8) } }
  }

  /// The packet's bytes as an array.
  var array: [UInt8] {
    withBytes { bytes in (0..<bytes.byteCount).map { bytes.unsafeLoadUnchecked($0) } }
  }
}

extension RawSpan {
  func unsafeLoadUnchecked(_ offset: Int) -> UInt8 { unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self) }
}

/// Something that holds a loop until a test lets it go.
final class Held: Sendable {
  private let state = Mutex((hasBegun: false, hasEnded: false))
  var hasBegun: Bool { state.withLock { $0.hasBegun } }
  func wait() {
    state.withLock { $0.hasBegun = true }
    while !state.withLock({ $0.hasEnded }) {}
  }
  func end() { state.withLock { $0.hasEnded = true } }
}
