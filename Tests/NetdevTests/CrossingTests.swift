import LibeventConcurrency
import Logging
import NetdevTesting
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioNet

@testable import Netdev

/// Ends and losses that cross with something else: what was granted, counted or kept just before.
@Suite(.timeLimit(.minutes(3))) struct CrossingTests {
  @Test func `room that was granted in the turn in which the queue broke is nobody's`() async throws {
    let lying = try await Lying()
    let queue = lying.queue
    let consumer = Outcome()
    Task { await consumer.record { for await _ in queue.packets {} } }
    for number in 0..<16 { try await queue.submit(Packet(copying: numbered(number), in: lying.pool)) }
    try await eventually("the ring is full") { await lying.held() == 16 }
    let sender = Outcome()
    Task { await sender.record { try await queue.send(Packet(copying: numbered(16), in: lying.pool)) } }
    try await eventually("it waits for room, and a consumer for a frame") { queue.statistics.ringFull == 1 }
    await turn(queue, times: 3)
    // A release makes room for the sender, and in the same turn what was received is found to be a lie.
    await lying.side.perform { pair in
      pair.release(interrupt: .never)
      pair.receive.show([(id: 9999, length: 0)])
      pair.interrupt()
    }
    try await eventually("both are told") { sender.finished == 1 && consumer.finished == 1 }
    #expect(sender.errors.map { $0.code } == [.broken])
    #expect(queue.statistics.packetsReleased == 1)
    // On the loop and elsewhere: nobody submits to what has ended.
    for isOutside in [false, true] {
      let late = Outcome()
      await late.record {
        let packet = try Packet(copying: numbered(17), in: lying.pool)
        if isOutside { return try await queue.submit(packet) }
        try await queue.run { queue in try await queue.submit(packet) }
      }
      #expect(late.errors.map { $0.code } == [.broken], "outside: \(isOutside)")
    }
    try await eventually("every buffer is back") { lying.pool.free == 512 }
    try? await lying.device.close()
  }

  @Test func `an end that comes before the life has begun has its deadline all the same`() async throws {
    let driver = DeafDriver()
    let loop = try LoopExecutor(name: "control")
    var settings = NetworkDevice.Configuration()
    settings.resetTimeout = .milliseconds(50)
    settings.logger.logLevel = .critical
    let room = OpeningRoom(loop: loop, devices: 1)
    let life = DeviceLife(driver, NetworkDriverRequest(), at: 0, in: room, settings, loop: loop)
    life.post(.end(.openCancelled))
    for _ in 0..<2 { await LoopScope(loop).run { _ in } }
    life.begin()
    let isGivenUp = Gateway()
    Task {
      _ = await life.ended()
      isGivenUp.open()
    }
    try await eventually("it is given up, although the driver's reset never ends", within: .seconds(20)) {
      isGivenUp.isOpen
    }
    driver.letGo()
    try await eventually("its life ends then") { driver.shutDowns == 1 }
  }

  @Test func `buffers of a lost device that is gone meanwhile are back after the reset`() async throws {
    let lying = try await Lying.lookedFor()
    let isGone = Gateway()
    try await lying.loseAndRegain(isGone: { isGone.isOpen })
    #expect(lying.queue.statistics.driver.quarantined == 16)
    // Nobody says so; whoever resets the device looks.
    isGone.open()
    try await lying.closeAndCheck()
  }

  @Test func `a pair that does not say what it has kept counts as a whole ring in quarantine`() async throws {
    // Room for one ring in quarantine, not for two.
    let lying = try await Lying.lookedFor(slots: 60)
    let queue = lying.queue
    let isHeld = Gateway()
    lying.side.lose(isGone: { false })
    try await eventually("the rings are laid anew") {
      lying.side.events.filter { $0 == .attach(queue: 0) }.count == 2
    }
    // Until the driver has waited for the answer of this loop.
    queue.loop.execute { while !isHeld.isOpen {} }
    try await eventually("the link is up") { lying.device.isLinkUp }
    isHeld.open()
    await turn(queue, times: 3)
    let end = Outcome()
    Task { await end.record { try await queue.closed() } }
    lying.side.lose(isGone: { false })
    try await eventually("the bound is reached") { end.finished == 1 }
    #expect(end.errors.map { $0.code } == [.resetNotConfirmed])
    try? await lying.device.close()
  }

  @Test func `an empty buffer in a received frame becomes no descriptor when the frame is sent on`() async throws {
    let lying = try await FrameLimitTests.lying(mtu: 9000, queueSize: 64)
    let queue = lying.queue
    let frame = numbered(3, count: 300)
    for pieces in [[300], [100, 200], [100, 0, 200], [300, 0], [0, 300], [0, 0, 300]] {
      let isTaken = await lying.side.perform { $0.deliver(frame, pieces: pieces, interrupt: .always) }
      #expect(isTaken == true)
      guard let packet = await first(queue) else { break }
      #expect(packet.array == frame)
      try await queue.submit(packet)
      try await eventually("it is sent back") { await lying.held() == 1 }
      #expect(await lying.side.perform { $0.transmitted()?.frame } == frame)
      let lengths = await lying.side.perform { $0.transmittedChain().map { $0.length } }
      #expect(lengths?.allSatisfy { $0 > 0 } == true, "\(pieces) became \(lengths ?? [])")
      await lying.side.perform { _ = $0.release(interrupt: .always) }
    }
    try await lying.closeAndCheck()
  }

  /// In a function of its own: nobody else holds the packet.
  private func first(_ queue: NetworkQueue) async -> Packet? {
    for await packet in queue.packets { return packet }
    return nil
  }
}

/// Opened once.
final class Gateway: Sendable {
  private let value = Atomic<Bool>(false)
  var isOpen: Bool { value.load(ordering: .acquiring) }
  func open() { value.store(true, ordering: .releasing) }
}

/// A driver whose reset hears neither its time-out nor a cancellation.
private final class DeafDriver: NetworkDriver {
  private let base = ScriptedDriver(mode: .hold)
  private let mayGo = Gateway()
  var shutDowns: Int { base.shutDownCount }
  func letGo() { mayGo.open() }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    try await base.start(request)
  }
  func attach(pool: PacketPool) async throws(NetworkDeviceError) { try await base.attach(pool: pool) }
  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    try base.makeQueue(index: index, loop: loop, slots: slots, signal: signal)
  }
  func activate() async throws(NetworkDeviceError) { try await base.activate() }
  func reset(timeout: Duration) async throws(NetworkDeviceError) {
    while !mayGo.isOpen { await Task.yield() }
    try await base.reset(timeout: timeout)
  }
  func shutDown() async { await base.shutDown() }
}
