import CNetdevSystem
import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import Testing

/// A loop that a test turns.
@Suite(.timeLimit(.minutes(1))) struct HandTurnedLoopTests {
  private final class Count: Sendable {
    private let value = Atomic<Int>(0)
    func add() { value.add(1, ordering: .relaxed) }
    var now: Int { value.load(ordering: .relaxed) }
  }

  @Test func `nothing happens until it is turned, and no time passes until it is let`() async throws {
    let hand = HandTurnedLoop()
    let driver = ScriptedDriver(mode: .release)
    let device = try await hand.run { try await NetworkDevice.open(driver: driver, configuration: hand.configuration) }
    let queue = device.queues[0]
    let count = Count()
    try await hand.run {
      try await queue.run { queue in _ = try queue.every(.seconds(1)) { count.add() } }
    }
    hand.settle()
    #expect(count.now == 0 && hand.now == .zero)
    hand.advance(by: .milliseconds(999))
    #expect(count.now == 0)
    hand.advance(by: .milliseconds(1))
    #expect(count.now == 1)
    // Each of the timers on the way fires at its own time.
    hand.advance(by: .seconds(3600))
    #expect(count.now == 3601 && hand.now == .seconds(3601))
    let sent = Count()
    let sending = Task {
      try await queue.send(Packet(copying: [UInt8](repeating: 1, count: 60), in: queue.pool))
      sent.add()
    }
    try await hand.run { while sent.now == 0 { await Task.yield() } }
    try await sending.value
    try await hand.run { try await device.close() }
    hand.advance(by: .seconds(10))
    #expect(count.now == 3601)
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `what is asked of a loop's timer or source elsewhere than on the loop does nothing`() throws {
    let hand = try HandTurnedLoop.withEvents()
    let descriptor = netdev_eventfd_create()
    defer { netdev_close(descriptor) }
    _ = netdev_eventfd_signal(descriptor)
    let (fired, ready) = (Count(), Count())
    let timer = try hand.loop.makeTimer { fired.add() }
    let source = try hand.loop.makeSource(descriptor: descriptor, readiness: .readable) { ready.add() }
    // The thread is not at home there any more.
    netdev_set_current_loop(nil)
    timer.unschedule()
    timer.schedule(after: .zero)
    source.suspend()
    source.resume()
    hand.arrive()
    for _ in 0..<3 { hand.poll() }
    #expect(fired.now == 0 && ready.now == 0)
    timer.schedule(after: .zero)
    source.resume()
    #expect(hand.wait { fired.now == 1 && ready.now > 0 })
    source.cancel()
    timer.cancel()
  }

  @Test func `what a body throws is thrown`() async throws {
    let hand = HandTurnedLoop()
    let error = await #expect(throws: NetworkDeviceError.self) {
      try await hand.run { throw NetworkDeviceError(.busy, "test") }
    }
    #expect(error?.code == .busy)
    #expect(hand.settle() < 10)
  }
}
