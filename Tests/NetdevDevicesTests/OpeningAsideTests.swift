import CTestSupport
import Foundation
import Glibc
import LibeventConcurrency
import NetdevDevices
import Synchronization
import TestSupport
import Testing

private actor Opener {
  nonisolated let loop: LoopExecutor
  private(set) var hasBegun = false
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
  init(loop: LoopExecutor) { self.loop = loop }

  func open(_ url: String) async throws -> NetworkDevice {
    hasBegun = true
    let device = try await NetworkDevice.open(url)
    #expect(loop.isOnLoop)
    return device
  }
}

/// A device that is opened from a loop, as in a queue's body.
@Suite(
  .serialized, .quietLoops, .timeLimit(.minutes(2)),
  .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct OpeningAsideTests {
  private static let canHold = NamespaceThread.isAvailable && test_can_hold_link_lock()

  @Test(.enabled(if: canHold, "needs root and userfaultfd"), arguments: ["tap:aside0", "packet:aside1"])
  func `whoever holds the kernel's lock of links holds no loop that a device is opened from, in that loop's namespace`(
    _ url: String
  ) async throws {
    let namespace = NamespaceThread()
    try await namespace.shell("ip link add aside1 type veth peer name aside2 && ip link set aside1 up")
    let opener = Opener(loop: try await namespace.run { try LoopExecutor(name: "opener") })
    #expect(test_hold_link_lock(2000) == 0)
    let opening = Task { try await opener.open(url) }
    try await eventually("it is being opened") { await opener.hasBegun }
    // The loop answers meanwhile.
    _ = await opener.hasBegun
    #expect(test_link_lock_is_held() == 1, "the loop has waited for the lock")
    let device = try await opening.value
    // Else a program that opens and closes meanwhile would leave one watch of the interface after the other, which all wait.
    #expect(test_link_lock_is_held() == 0, "it is open before the kernel has said what its interface is")
    try await namespace.shell("ip link show \(url.dropFirst(url.count - 6))")
    try await device.close()
  }

  @Test(.enabled(if: canHold, "needs root and userfaultfd"), arguments: ["tap:aside0", "packet:aside1"])
  func `an opening on a loop that is cancelled while somebody holds the lock does not wait for it, and leaves nothing`(
    _ url: String
  ) async throws {
    let namespace = NamespaceThread()
    try await namespace.shell("ip link add aside1 type veth peer name aside2 && ip link set aside1 up")
    let opener = Opener(loop: try await namespace.run { try LoopExecutor(name: "opener") })
    #expect(test_hold_link_lock(2000) == 0)
    let opening = Task { try await opener.open(url) }
    try await eventually("a thread waits for the lock") { Self.threads("netdev-aside") == 1 }
    opening.cancel()
    let error = await #expect(throws: NetworkDeviceError.self) { try await opening.value }
    #expect(error?.code == .cancelled)
    #expect(test_link_lock_is_held() == 1, "it has waited for the lock")
    try await eventually("the thread has had its answer") { Self.threads("netdev-aside") == 0 }
    try await eventually("what was made is gone") {
      (try? await namespace.shell("! ip link show aside0 2> /dev/null && [ $(wc -l < /proc/net/packet) = 1 ]")) != nil
    }
  }

  /// Threads of this process with a name.
  private static func threads(_ name: String) -> Int {
    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
    return all.count { (try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)) == name + "\n" }
  }
}

/// A device that waits for nobody.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(2))) struct OpeningBesideTests {
  private final class Stuck: Sendable {
    let mayEnd = Atomic(false)
    let begun = Atomic(0)
    let ended = Atomic(0)
  }

  @Test func `calls of others that are stuck keep no loop from opening a device that waits for none of them`()
    async throws
  {
    let stuck = Stuck()
    let calls = (0..<BlockingCalls.mostAbandoned).map { _ in
      Task {
        _ = await BlockingCalls.aside {
          stuck.begun.add(1, ordering: .relaxed)
          while !stuck.mayEnd.load(ordering: .acquiring) { usleep(1000) }
          stuck.ended.add(1, ordering: .relaxed)
        }
      }
    }
    defer { stuck.mayEnd.store(true, ordering: .releasing) }
    try await eventually("all are being made") { stuck.begun.load(ordering: .relaxed) == calls.count }
    for call in calls { call.cancel() }
    for call in calls { await call.value }
    let device = try await Opener(loop: try LoopExecutor(name: "opener")).open("loopback:")
    try await device.close()
    stuck.mayEnd.store(true, ordering: .releasing)
    try await eventually("they end") { stuck.ended.load(ordering: .relaxed) == calls.count }
  }
}
