import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Whoever calls a queue that has ended goes on at once, whatever he would wait for and however long: with the end, or with the
/// cancellation of his task, and never with anything else.
@Suite(.timeLimit(.minutes(4))) struct EndedQueueTests {
  enum Ending: CaseIterable { case closed, broken }

  private static let cause = NetworkDeviceError(.broken, "the test")

  @Test(arguments: Call.allCases, Ending.allCases)
  func `no call of a queue that has ended waits`(call: Call, ending: Ending) async throws {
    for isCancelled in [false, true] {
      let driver = ScriptedDriver(mode: .hold)
      let device = try await NetworkDevice.open(driver: driver)
      let queue = device.queues[0]
      let outcome = Outcome()
      let task = Task {
        await outcome.record {
          try await Self.make(call, of: queue, device) {
            switch ending {
            case .closed: try await device.close()
            case .broken:
              await driver.breakQueue(Self.cause)
              _ = try? await queue.closed()
            }
            if isCancelled { unsafe withUnsafeCurrentTask { unsafe $0?.cancel() } }
          }
        }
      }
      // As soon as the machine comes to it: what waits here waits for ever.
      try await eventually("\(call), cancelled: \(isCancelled), goes on", within: .seconds(30)) {
        outcome.finished == 1
      }
      await task.value
      let codes: [NetworkDeviceError.Code] = [.closed, .broken, .cancelled]
      #expect(outcome.errors.allSatisfy { codes.contains($0.code) }, "\(call): \(outcome.errors)")
      try? await device.close()
    }
  }

  /// Collects what is thrown, and goes on.
  private nonisolated(nonsending) static func each<Value>(
    _ values: [Value], _ body: nonisolated(nonsending) (Value) async throws -> Void
  ) async throws {
    var first: (any Error)?
    for value in values {
      do { try await body(value) } catch { first = first ?? error }
    }
    if let first { throw first }
  }

  private static let times: [Duration] = [.seconds(-1), .zero, .nanoseconds(1), .seconds(3600)]

  private static func silence() -> AsyncStream<Packet> { AsyncStream { _ in } }

  /// Makes the call when `end` has ended the queue.
  private nonisolated(nonsending) static func make(
    _ call: Call, of queue: NetworkQueue, _ device: NetworkDevice, after end: @Sendable () async throws -> Void
  ) async throws {
    let pool = device.pool
    func packet() throws(NetworkDeviceError) -> Packet { try Packet(copying: numbered(1), in: pool) }
    switch call {
    case .submitBurst, .sendBurst, .trySubmitBurst:
      let burst = try await queue.makeBurst(count: 3, length: 64)
      try await end()
      switch call {
      case .submitBurst: try await queue.submit(burst)
      case .sendBurst: try await queue.send(burst)
      default: _ = try queue.trySubmit(burst)
      }
      return
    case .linkChanges:
      let changes = device.linkChanges
      try await end()
      for await _ in changes {}
      return
    default: try await end()
    }
    switch call {
    case .packets: for await _ in queue.packets { Issue.record("a packet") }
    case .packetsMapped:
      for await _ in queue.packets.map({ (packet: consuming Packet) in packet.count }) { Issue.record("a packet") }
    case .packetsCompactMapped:
      for await _ in queue.packets.compactMap({ (packet: consuming Packet) -> Int? in packet.count }) {
        Issue.record("a packet")
      }
    case .packetsFiltered: for await _ in queue.packets.filter({ _ in true }) { Issue.record("a packet") }
    case .broadcast: for copy in queue.broadcast(to: 2) { for await _ in copy { Issue.record("a packet") } }
    case .receiveBurst: #expect(await queue.receiveBurst()?.count == nil)
    case .receiveBurstIfAny: #expect(await queue.receiveBurstIfAny()?.count == nil)
    case .receiveBurstWithin:
      try await each(times) { time in
        _ = try await queue.receiveBurst(within: time)
        Issue.record("no end was told within \(time)")
      }
    case .submit: try await queue.submit(packet())
    case .send: try await queue.send(packet())
    case .sendContents: try await queue.send(contentsOf: [packet(), packet()])
    case .submitForReceipt: try await queue.submitForReceipt(packet()).released
    case .trySubmit: _ = try queue.trySubmit(packet())
    case .makeBurst: _ = try await queue.makeBurst(count: 3, length: 64).count
    case .forward: try await queue.forward(from: Made(count: 3, pool: pool))
    case .forwardInFlight: try await queue.forward(from: Made(count: 3, pool: pool), inFlight: 2)
    case .forwardAny: try await queue.forward(from: silence())
    case .forwardAnyInFlight: try await queue.forward(from: silence(), inFlight: 2)
    case .releases: for await _ in queue.releases {}
    case .sleep: try await each(times) { try await queue.sleep(for: $0) }
    case .withDeadline:
      try await each(times) { time in
        try await queue.withDeadline(.seconds(3600)) { _ = try await $0.receiveBurst(within: time) }
      }
    case .closed: try await queue.closed()
    case .close: try await device.close()
    case .run: await queue.run { _ in }
    case .deviceRun:
      do {
        try await device.run { queue in for await _ in queue.packets { Issue.record("a packet") } }
      } catch is CancellationError {
        #expect(Task.isCancelled)
      }
    case .statistics: _ = (queue.statistics, device.statistics)
    case .isLinkUp: _ = device.isLinkUp
    case .pollableDescriptor: _ = try await queue.pollableDescriptor
    case .submitBurst, .sendBurst, .trySubmitBurst, .linkChanges: break
    }
  }

  /// A body that looks at several queues: the end of one is no reason for it to stand still.
  @Test func `a body that looks at a queue that has ended goes on, and its device's run can be cancelled`() async throws
  {
    let devices = try await NetworkDevice.open(drivers: [ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold)])
    let other = devices[1].queues[0]
    let rounds = Atomic<Int>(0)
    let outcome = Outcome()
    let running = Task {
      await outcome.record {
        try await devices[0].run { queue in
          while true {
            _ = try await queue.receiveBurst(within: .milliseconds(1))
            _ = try? await other.receiveBurst(within: .zero)
            rounds.add(1, ordering: .relaxed)
          }
        }
      }
    }
    try await eventually("it turns") { rounds.load(ordering: .relaxed) > 3 }
    try await devices[1].close()
    let before = rounds.load(ordering: .relaxed)
    try await eventually("it goes on", within: .seconds(30)) { rounds.load(ordering: .relaxed) > before + 3 }
    running.cancel()
    try await eventually("run ends", within: .seconds(30)) { outcome.finished == 1 }
    await running.value
  }
}
