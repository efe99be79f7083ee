import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// One cancellation, one error: whatever a task waits for, it is told that it was cancelled, and nothing else.
@Suite(.timeLimit(.minutes(3))) struct CancellationTests {
  /// Every wait of the public face.
  enum Wait: CaseIterable {
    case sendForRoom, submitForRoom, outsideForRoom, receiptForRoom, batchForRoom, burstForRoom, burstSubmittedForRoom
    case forwardForRoom, forwardAnyForRoom, forwardForLimit, forwardForPackets, forwardAnyForPackets
    case sendForBuffer, submitForBuffer, receiptForBuffer, batchForBuffer
    case sendForRelease, batchForRelease, burstForRelease, receiptReleased
    case packets, packetsMapped, packetsOutside, receiveBurst, receiveBurstOutside, releases, linkChanges, closed
    case sleep, clockSleep, receiveBurstWithin, receiveBurstWithinOutside, deadline, deadlineOutside, broadcast
    case broadcastForOthers

    /// The operation that the program called, where the wait ends by an error.
    var operation: String? {
      switch self {
      case .sendForRoom, .burstForRoom, .sendForBuffer: "send"
      case .submitForRoom, .outsideForRoom, .burstSubmittedForRoom, .submitForBuffer: "submit"
      case .receiptForRoom, .receiptForBuffer: "submitForReceipt"
      case .batchForRoom, .batchForBuffer: "send(contentsOf:)"
      case .forwardForRoom, .forwardAnyForRoom, .forwardForLimit, .forwardForPackets, .forwardAnyForPackets: "forward"
      case .closed: "closed"
      case .sleep, .deadline, .deadlineOutside: "sleep"
      case .receiveBurstWithin, .receiveBurstWithinOutside: "receiveBurst"
      case .sendForRelease, .batchForRelease, .burstForRelease, .receiptReleased: nil
      case .packets, .packetsMapped, .packetsOutside, .receiveBurst, .receiveBurstOutside, .releases, .linkChanges: nil
      case .clockSleep, .broadcast, .broadcastForOthers: nil
      }
    }

    /// What is published stays so: the wait goes on until the release.
    var isForRelease: Bool {
      [.sendForRelease, .batchForRelease, .burstForRelease, .receiptReleased].contains(self)
    }
    /// Some of what it sends may be published when it is cancelled: that goes on to its release.
    var mayHavePublished: Bool { isPipeline || [.batchForRoom, .batchForBuffer].contains(self) }
    var isPipeline: Bool { [.forwardForRoom, .forwardAnyForRoom, .forwardForLimit].contains(self) }
    var needsFullRing: Bool {
      [
        .sendForRoom, .submitForRoom, .outsideForRoom, .receiptForRoom, .batchForRoom, .burstForRoom,
        .burstSubmittedForRoom, .forwardForRoom, .forwardAnyForRoom,
      ].contains(self)
    }
    var needsEmptyPool: Bool {
      [.sendForBuffer, .submitForBuffer, .receiptForBuffer, .batchForBuffer].contains(self)
    }
  }

  /// Waits, on the queue's loop; `isThere` is called just before.
  private static func wait(
    _ wait: Wait, on queue: isolated NetworkQueue, of device: NetworkDevice, _ isThere: () -> Void
  ) async throws {
    let pool = queue.pool
    var kept: [Packet] = []
    defer { withExtendedLifetime(kept) {} }
    if wait.needsFullRing {
      for number in 0..<16 { try await queue.submit(Packet(copying: numbered(number), in: pool)) }
    }
    if wait.needsEmptyPool {
      while kept.last?.isInPool != false { kept.append(try Packet(copying: numbered(1), in: pool)) }
    }
    let packet = try wait.needsEmptyPool ? kept.removeLast() : Packet(copying: numbered(99), in: pool)
    isThere()
    switch wait {
    case .sendForRoom, .sendForRelease, .sendForBuffer: try await queue.send(packet)
    case .submitForRoom, .submitForBuffer: try await queue.submit(packet)
    case .outsideForRoom:
      // Some are taken elsewhere than on the loop before anybody has to wait.
      try await outside(queue) { queue in for _ in 0..<1000 { try await queue.submit(packet) } }
    case .receiptForRoom, .receiptForBuffer: _ = try await queue.submitForReceipt(packet)
    case .receiptReleased: try await queue.submitForReceipt(packet).released
    case .batchForRoom, .batchForRelease, .batchForBuffer: try await queue.send(contentsOf: [packet, packet])
    case .burstForRoom, .burstForRelease: try await queue.send(queue.makeBurst(count: 2, length: 60))
    case .burstSubmittedForRoom: try await queue.submit(queue.makeBurst(count: 2, length: 60))
    case .forwardForRoom: try await queue.forward(from: Repeated(packet: packet))
    case .forwardForLimit: try await queue.forward(from: Repeated(packet: packet), inFlight: 2)
    case .forwardAnyForRoom:
      try await queue.forward(
        from: AsyncStream { continuation in for _ in 0..<9 { continuation.yield(packet) } })
    case .forwardForPackets: try await queue.forward(from: queue.packets)
    case .forwardAnyForPackets: try await queue.forward(from: AsyncStream(Packet.self) { _ in })
    case .packets: for await _ in queue.packets {}
    case .packetsMapped: for await _ in queue.packets.map({ $0 }).filter({ _ in true }) {}
    case .packetsOutside: try await outside(queue) { for await _ in $0.packets {} }
    case .receiveBurst: while await queue.receiveBurst() != nil {}
    case .receiveBurstOutside: try await outside(queue) { while await $0.receiveBurst() != nil {} }
    case .linkChanges: for await _ in device.linkChanges {}
    case .releases: for await _ in queue.releases {}
    case .closed: try await queue.closed()
    case .sleep: try await queue.sleep(for: .seconds(3600))
    case .clockSleep:
      // A clock of the language: what it throws is the language's, and it is no queue's.
      do { try await queue.clock.sleep(for: .seconds(3600)) } catch { #expect(error is CancellationError) }
    case .receiveBurstWithin: while try await queue.receiveBurst(within: .seconds(3600)) != nil {}
    case .receiveBurstWithinOutside:
      try await outside(queue) { while try await $0.receiveBurst(within: .seconds(3600)) != nil {} }
    case .deadline: try await queue.withDeadline(.seconds(3600)) { try await $0.sleep(for: .seconds(3600)) }
    case .deadlineOutside:
      try await outside(queue) { try await $0.withDeadline(.seconds(3600)) { try await $0.sleep(for: .seconds(3600)) } }
    case .broadcast: for await _ in queue.broadcast(to: 2)[1] {}
    case .broadcastForOthers:
      // One of them waits for the queue, the other for that one.
      let copies = queue.broadcast(to: 2)
      async let first: Void = drain(copies[0])
      await drain(copies[1])
      await first
    }
  }

  private static func drain(_ packets: BroadcastPackets) async { for await _ in packets {} }

  /// The same from a task that is not on the loop, a child of this one.
  private static func outside(
    _ queue: NetworkQueue, _ body: @escaping @Sendable (NetworkQueue) async throws -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await body(queue) }
      try await group.next()
    }
  }

  /// A source that never ends and never waits, and holds the packet that it brings.
  private struct Repeated: PacketSequence {
    typealias Element = Packet
    typealias Failure = Never
    let packet: Packet
    func makeAsyncIterator() -> Iterator { Iterator(packet: packet) }
    struct Iterator: PacketIterator {
      let packet: Packet
      nonisolated(nonsending) mutating func nextPacket() async -> Packet? { packet }
    }
  }

  private static func open() async throws -> (NetworkDevice, ScriptedDriver) {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 128, hugePages: false))
    return (try await NetworkDevice.open(driver: driver, configuration: configuration), driver)
  }

  @Test(arguments: Wait.allCases, [1, 2])
  func `a device whose run is cancelled throws CancellationError, whatever its bodies wait for`(
    _ wait: Wait, _ bodies: Int
  ) async throws {
    // Several times: a wait meets with the cancellation itself, or with the close that comes of it.
    for round in 0..<10 {
      let (device, _) = try await Self.open()
      let started = Tally(1)
      let run = Task {
        try await device.run { queue in try await Self.wait(wait, on: queue, of: device) { started.add(0) } }
      }
      try await eventually("it waits") { started.total == 1 }
      if round > 0 { await turn(device.queues[0], times: UInt64(round)) }
      run.cancel()
      await #expect(throws: CancellationError.self) { try await run.value }
      try await eventually("every buffer is back") { device.pool.free == 128 }
    }
  }

  @Test(arguments: Wait.allCases)
  func `a task that is cancelled while it waits is told that by the call that it made`(_ wait: Wait) async throws {
    let (device, driver) = try await Self.open()
    let queue = device.queues[0]
    let (started, outcome) = (Tally(1), Outcome())
    let task = Task {
      await outcome.record {
        try await queue.run { queue in try await Self.wait(wait, on: queue, of: device) { started.add(0) } }
      }
    }
    try await eventually("it waits") { started.total == 1 }
    await turn(queue, times: 5)
    #expect(outcome.finished == 0)
    task.cancel()
    if wait.isForRelease || wait.mayHavePublished {
      // What has been published goes on to its release.
      await turn(queue, times: 5)
      try await eventually("it ends with the release") {
        await driver.releaseAll()
        return outcome.finished == 1
      }
    }
    try await eventually("it ends") { outcome.finished == 1 }
    #expect(outcome.errors.map { $0.code } == (wait.operation == nil ? [] : [.cancelled]))
    #expect(outcome.errors.map { $0.operation } == (wait.operation.map { [$0] } ?? []))
    // It concerned that task: the queue goes on.
    await driver.releaseAll()
    let send = Outcome()
    Task { await send.record { try await queue.send(Packet(copying: numbered(5), in: device.pool)) } }
    try await eventually("the queue goes on") {
      await driver.releaseAll()
      return send.finished == 1
    }
    #expect(send.errors.isEmpty)
    try await device.close()
    try await eventually("every buffer is back") { device.pool.free == 128 }
  }

  @Test func `a task that is cancelled iterates releases no further, though there have been some`() async throws {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .release, capacity: 16))
    let queue = device.queues[0]
    let seen = try await Task {
      try await queue.run { queue in
        var iterator = queue.releases.makeAsyncIterator()
        try await queue.submit(Packet(copying: numbered(1), in: queue.pool))
        let first = await iterator.next()
        try await queue.send(Packet(copying: numbered(2), in: queue.pool))
        unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
        return [first?.released, await iterator.next()?.released]
      }
    }.value
    #expect(seen == [1, nil])
    try await device.close()
  }

  struct OwnError: Error {}

  @Test func `what a body throws of its own is thrown, cancelled or not, and so is the cause when a queue breaks`()
    async throws
  {
    let (device, _) = try await Self.open()
    let started = Tally(1)
    let run = Task {
      try await device.run { queue in
        started.add(0)
        for await _ in queue.packets {}
        throw OwnError()
      }
    }
    try await eventually("it waits") { started.total == 1 }
    run.cancel()
    await #expect(throws: OwnError.self) { try await run.value }

    let (other, driver) = try await Self.open()
    let broken = Task { try await other.run { queue in try await queue.closed() } }
    await turn(other.queues[0], times: 5)
    await driver.breakQueue(NetworkDeviceError(.broken, "the test"))
    await #expect(throws: NetworkDeviceError(.broken, "the test")) { try await broken.value }
  }
}
