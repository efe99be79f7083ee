import CNetdevSystem
import Glibc
import LibeventConcurrency
import Netdev
import TestSupport
import Testing

@testable import VhostUser

/// A back-end that plays with the flags of the eventfds that both sides hold holds no loop.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(2))) struct DoorbellTests {
  /// Watches so often that a test is quick.
  private static func makeWatch(patience: Int = 1_000_000) async throws -> (KickWatch, LoopExecutor) {
    let loop = try LoopExecutor(name: "control")
    let watch = try KickWatch(loop: loop, pause: .milliseconds(5), patience: patience)
    try await watch.start()
    return (watch, loop)
  }

  /// Where a bell is rung that may be blocked: surely not on the watch's loop, on which optimized code may go on after an await
  /// of it.
  private static func makeQueueLoop() throws -> LoopScope { LoopScope(try LoopExecutor(name: "queue")) }

  @Test(arguments: 1...5) func `a loop in a blocked doorbell is let out, and the bell is not rung again`(
    round: Int
  ) async throws {
    let (watch, _) = try await Self.makeWatch()
    let bell = try Doorbell(for: "test")
    watch.add([bell])
    let queue = try Self.makeQueueLoop()
    #expect(await queue.run { _ in bell.ring(watch) })
    let blocker = DoorbellBlocker(bell.descriptor)
    // A loop is in this call.
    #expect(await queue.run { _ in !bell.ring(watch) })
    // The eventfd is blocked once more, and not touched any more.
    #expect(await queue.run { _ in (0..<1000).allSatisfy { _ in !bell.ring(watch) } })
    blocker.end()
    await watch.stop()
  }

  @Test func `a full counter alone is no offence, nor a flag that was cleared`() async throws {
    let (watch, _) = try await Self.makeWatch()
    let full = try Doorbell(for: "test")
    let cleared = try Doorbell(for: "test")
    watch.add([full, cleared])
    DoorbellBlocker.fill(full.descriptor)
    DoorbellBlocker.clearFlag(cleared.descriptor)
    for _ in 0..<50 {
      #expect(full.ring(watch))
      #expect(cleared.ring(watch))
      try await Task.sleep(for: .milliseconds(2))
    }
    await watch.stop()
  }

  @Test func `a watch of quiet doorbells dozes, and the first ring wakes it, each time`() async throws {
    let (watch, loop) = try await Self.makeWatch(patience: 3)
    let bell = try Doorbell(for: "test")
    watch.add([bell])
    for _ in 0..<5 {
      let before = loop.statistics.turns
      #expect(bell.ring(watch))
      try await eventually("the watch looks") { loop.statistics.turns >= before + 3 }
      var turns = loop.statistics.turns
      try await eventually("the watch dozes") {
        defer { turns = loop.statistics.turns }
        try? await Task.sleep(for: .milliseconds(100))
        return loop.statistics.turns == turns
      }
    }
    // It frees a loop whose ring has woken it.
    let queue = try Self.makeQueueLoop()
    let blocker = DoorbellBlocker(bell.descriptor)
    #expect(await queue.run { _ in !bell.ring(watch) })
    blocker.end()
    await watch.stop()
  }

  @Test func `reading an eventfd never waits, whatever its flags say`() {
    let descriptor = netdev_eventfd_create()
    defer { close(descriptor) }
    DoorbellBlocker.clearFlag(descriptor)
    #expect(netdev_eventfd_drain(descriptor) == 0)
    _ = netdev_eventfd_signal(descriptor)
    #expect(netdev_eventfd_drain(descriptor) == 1)
    #expect(netdev_eventfd_drain(descriptor) == 0)
  }

  @Test
  func
    `a back-end that blocks the doorbells breaks its queue, be it while it opens: it says why, and closes in its time`()
    async throws
  {
    let backend = ScriptedBackend()
    backend.blockDoorbells()
    await #expect {
      // The first doorbell is the last step of opening: whether that ends before the watch has seen it is chance.
      let device = try await Opening(backend).open()
      defer { withExtendedLifetime(device) {} }
      try await device.queues[0].closed()
    } throws: { error in
      guard let error = error as? NetworkDeviceError else { return false }
      return error.code == .broken && error.description.contains("blocks a doorbell")
    }
    backend.end()
  }
}
