import CNetdevSystem
import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import TestSupport
import Testing

/// Says that code is where it was put; ends the test program when it is not.
private typealias Stay = @Sendable () -> Void

private actor Elsewhere {
  private var rounds = 0

  func meetErrors(_ stay: @escaping Stay) async throws {
    // Something of the actor's own, or an optimized build never comes to it.
    rounds += 1
    try await HopBackTests.meetErrors(stay)
  }
}

/// Whoever opens, closes, or catches an error goes on where he was, as with every other call (`EverywhereTests`).
///
/// The optimizer has taken hops away here, `HopBack` says why: a build for debugging cannot fail, `make test-thread` can.
@Suite(.timeLimit(.minutes(2))) struct HopBackTests {
  @Test func `the main actor's code goes on there`() async throws {
    try await Task { @MainActor in try await Self.meetErrors { MainActor.assertIsolated() } }.value
  }

  @Test func `an actor's code goes on there`() async throws {
    let elsewhere = Elsewhere()
    try await elsewhere.meetErrors { elsewhere.assertIsolated() }
  }

  @Test func `a task's code goes on outside all loops`() async throws {
    try await Task.detached {
      try await Self.meetErrors { precondition(netdev_current_loop_identity() == 0, "on a loop") }
    }.value
  }

  fileprivate nonisolated(nonsending) static func meetErrors(_ stay: @escaping Stay) async throws {
    stay()
    let url = try await NetworkDevice.open("loopback:?queues=2")
    stay()
    try await url.close()
    stay()
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    stay()
    await expectError(stay) { () async throws(NetworkDeviceError) in _ = try await NetworkDevice.open(driver: driver) }
    let queue = device.queues[0]
    let pool = device.pool
    let bursts = [
      try await queue.makeBurst(count: 3, length: 64).count, try await queue.makeBurst(count: 3, length: 64).count,
    ]
    #expect(bursts == [3, 3])
    stay()
    let receipt = try await queue.submitForReceipt(Packet(copying: numbered(1), in: pool))
    let closing = Task { try? await device.close() }
    await expectError(stay) { () async throws(NetworkDeviceError) in try await receipt.released }
    await closing.value
    try await meetErrors(of: queue, pool, stay)
    try? await device.close()
    stay()
    let running = try await NetworkDevice.open(driver: ScriptedDriver(mode: .loopback))
    do {
      try await running.run { _ in throw NetworkDeviceError(.system, "a body", offered: "an error of its own") }
      Issue.record("no error")
    } catch {
      stay()
    }
  }

  /// Of a queue that has ended.
  private nonisolated(nonsending) static func meetErrors(
    of queue: NetworkQueue, _ pool: PacketPool, _ stay: @escaping Stay
  ) async throws {
    func packet() throws(NetworkDeviceError) -> Packet { try Packet(copying: numbered(2), in: pool) }
    await expectError(stay) { () async throws(NetworkDeviceError) in try await queue.submit(packet()) }
    await expectError(stay) { () async throws(NetworkDeviceError) in try await queue.send(packet()) }
    await expectError(stay) { () async throws(NetworkDeviceError) in try await queue.send(contentsOf: [packet()]) }
    await expectError(stay) { () async throws(NetworkDeviceError) in _ = try await queue.submitForReceipt(packet()) }
    await expectError(stay) { () async throws(NetworkDeviceError) in
      _ = try await queue.makeBurst(count: 1, length: 64)
    }
    for bound in [nil, 2] {
      do {
        if let bound {
          try await queue.forward(from: Made(count: 3, pool: pool), inFlight: bound)
        } else {
          try await queue.forward(from: Made(count: 3, pool: pool))
        }
        Issue.record("no error")
      } catch {
        stay()
      }
    }
    // Received before the end, sent after it.
    for isSent in [false, true] {
      let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .loopback))
      try await device.queues[0].submit(Packet(copying: numbered(0), in: device.pool))
      guard let burst = await device.queues[0].receiveBurst() else { throw Unexpected() }
      try await device.close()
      do throws(NetworkDeviceError) {
        if isSent { try await device.queues[0].send(burst) } else { try await device.queues[0].submit(burst) }
        Issue.record("no error")
      } catch {
        stay()
      }
    }
  }

  private struct Unexpected: Error {}

  private nonisolated(nonsending) static func expectError(
    _ stay: Stay, _ call: nonisolated(nonsending) () async throws(NetworkDeviceError) -> Void
  ) async {
    do throws(NetworkDeviceError) {
      try await call()
      Issue.record("no error")
    } catch {
      stay()
    }
    stay()
  }
}
