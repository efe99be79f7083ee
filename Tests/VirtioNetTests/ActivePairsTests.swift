import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// Queue pairs that are switched off and on while frames go (VIRTIO 1.4 §5.1.9.5.6.1).
@Suite(.timeLimit(.minutes(2))) struct ActivePairsTests {
  // MARK: With a device of this process

  private static func open(_ one: ControlledLoopback) async throws -> (device: NetworkDevice, model: VirtioNetDevice) {
    try await one.open(pairs: 4, lossless: true, queueSize: 64)
  }

  /// What came in, by the queue that it was sent by.
  private final class Seen: Sendable {
    private let numbers = Mutex<[UInt8: [UInt32]]>([:])
    func note(_ sender: UInt8, _ number: UInt32) { numbers.withLock { $0[sender, default: []].append(number) } }
    var all: [UInt8: [UInt32]] { numbers.withLock { $0 } }
    var count: Int { all.values.reduce(0) { $0 + $1.count } }
  }

  /// Set by a test when its senders shall end.
  private final class Flag: Sendable {
    private let isSet = Atomic<Bool>(false)
    var value: Bool { isSet.load(ordering: .relaxed) }
    func set() { isSet.store(true, ordering: .relaxed) }
  }

  private static func frame(_ sender: Int, _ number: Int) -> [UInt8] {
    [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, 1, 0x88, 0xb5, UInt8(sender)]
      + (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } + [UInt8](repeating: 0, count: 45)
  }

  /// Sends by a queue, in every way, until it is over; how many.
  private static func send(
    by queue: NetworkQueue, in pool: PacketPool, until isOver: @Sendable () -> Bool
  ) async throws -> Int {
    var number = 0
    while !isOver() {
      func next() throws -> Packet {
        defer { number += 1 }
        return try Packet(copying: frame(queue.index, number), in: pool)
      }
      switch number % 3 {
      case 0: try await queue.send(next())
      case 1: try await queue.submit(next())
      default: try await queue.send(contentsOf: [next(), next()])
      }
    }
    return number
  }

  @Test(arguments: ControlledLoopback.all)
  func `pairs go and come under load: each frame comes back once, and each send ends`(one: ControlledLoopback)
    async throws
  {
    let (device, model) = try await Self.open(one)
    let pool = device.pool
    let seen = Seen()
    let isOver = Flag()
    let run = Outcome()
    let running = Task {
      await run.record {
        try await device.run { queue in
          for await packet in queue.packets {
            let bytes = packet.array
            seen.note(bytes[14], (0..<4).reduce(0) { $0 | UInt32(bytes[15 + $1]) << UInt32(8 * $1) })
          }
        }
      }
    }
    let senders = device.queues.map { queue in
      Task { try await Self.send(by: queue, in: pool) { isOver.value } }
    }
    for count in [1, 4, 2, 3, 1, 4, 4, 1, 2, 4, 1] {
      try await device.setActiveQueuePairs(count)
      #expect(device.activeQueuePairs == count)
      #expect(model.activePairs == count)
      // Nothing is sent by the rings of the others.
      let before = model.statistics[count...].map { $0.transmittedFrames }
      try await Task.sleep(for: .milliseconds(2))
      #expect(model.statistics[count...].map { $0.transmittedFrames } == before)
    }
    isOver.set()
    var sent: [Int] = []
    for sender in senders { sent.append(try await sender.value) }
    try await device.setActiveQueuePairs(4)
    try await eventually("all have come back") { seen.count == sent.reduce(0, +) }
    for (queue, count) in sent.enumerated() { #expect(Set(seen.all[UInt8(queue)] ?? []).count == count) }
    let statistics = device.totalStatistics
    #expect(statistics.packetsMoved > 0)
    #expect(statistics.packetsFailed == 0)
    #expect(statistics.packetsSubmitted - statistics.packetsMoved == UInt64(sent.reduce(0, +)))
    #expect(model.statistics.reduce(0) { $0 + $1.drops.total } == 0)
    try await device.close()
    await running.value
    #expect(run.errors.isEmpty)
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test(arguments: ControlledLoopback.all)
  func `a device that is closed while pairs carry others' frames ends each send`(
    one: ControlledLoopback
  ) async throws {
    for round in 0..<20 {
      let (device, _) = try await Self.open(one)
      try await device.setActiveQueuePairs(1 + round % 3)
      let sends = (0..<64).map { _ in Outcome() }
      for (number, send) in sends.enumerated() {
        let queue = device.queues[number % 4]
        let packet = try Packet(copying: Self.frame(queue.index, number), in: device.pool)
        Task { await send.record { try await queue.send(packet) } }
      }
      if round % 2 == 0 { Task { try? await device.setActiveQueuePairs(4) } }
      try await device.close()
      try await eventually("every send has ended") { sends.allSatisfy { $0.finished == 1 } }
      for send in sends { #expect(send.errors.allSatisfy { $0.code == .closed }) }
      try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
    }
  }

  @Test func `there are as many as the device was opened with, and no fewer than one`() async throws {
    let (device, _) = try await Self.open(ControlledLoopback.all[0])
    for count in [0, -1, 5, 65_536] {
      await #expect {
        try await device.setActiveQueuePairs(count)
      } throws: { ($0 as? NetworkDeviceError)?.code == .invalidConfiguration }
    }
    #expect(device.activeQueuePairs == 4)
    try await device.setActiveQueuePairs(4)
    try await device.close()
  }

  // MARK: With a device that is not as it should be

  private func open(
    lying rings: RingFormat, recovery: VirtioRecovery? = nil, timeout: Duration = .seconds(2)
  ) async throws -> Lying {
    var configuration = LyingDevice.Configuration()
    configuration.features.formUnion([.ctrlVQ, .mq])
    configuration.space = LyingDevice.Space.bytes(pairs: 2)
    configuration.pairSwitching = .controlQueue
    configuration.recovery = recovery
    var options = VirtioNetDriver.Options()
    options.controlTimeout = timeout
    return try await Lying(configuration, options: options, queuePairs: 2, rings: rings)
  }

  private func held(_ lying: Lying, _ pair: Int) async -> Int {
    await lying.side.perform(pair: pair) { $0.transmit.held.count } ?? -1
  }

  /// Sends a frame by the second queue.
  private func send(_ number: Int, _ lying: Lying) throws -> Outcome {
    let (outcome, queue) = (Outcome(), lying.device.queues[1])
    let packet = try Packet(copying: numbered(number), in: lying.pool)
    Task { await outcome.record { try await queue.send(packet) } }
    return outcome
  }

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 23: a pair is closed when nothing of it is with the device, and its frames go elsewhere`(
    rings: RingFormat
  ) async throws {
    let lying = try await open(lying: rings)
    let (device, queue) = (lying.device, lying.device.queues[1])
    let first = try send(1, lying)
    try await eventually("it is with the device") { await held(lying, 1) == 1 }
    let switching = Outcome()
    Task { await switching.record { try await device.setActiveQueuePairs(1) } }
    try await Task.sleep(for: .milliseconds(5))
    let second = try send(2, lying)
    try await Task.sleep(for: .milliseconds(5))
    // Held meanwhile: it must not overtake the first, nor go by a pair that is about to be closed.
    #expect(await held(lying, 1) == 1)
    #expect(await held(lying, 0) == 0)
    #expect(await lying.side.performControl { $0.commands.count } == 1)
    await lying.side.perform(pair: 1) { $0.releaseAll() }
    try await eventually("the device is told") { switching.finished == 1 }
    #expect(switching.errors.isEmpty)
    #expect(await lying.side.performControl { $0.understood.last } == .queuePairs(1))
    try await eventually("the second goes by the other pair") { await held(lying, 0) == 1 }
    #expect(first.finished == 1)
    #expect(await held(lying, 1) == 0)
    #expect(await lying.side.perform(pair: 0) { $0.transmitted(at: 0)?.frame } == numbered(2))
    await lying.side.perform(pair: 0) { $0.releaseAll() }
    try await eventually("its sender goes on") { second.finished == 1 }
    #expect(second.errors.isEmpty)
    try await device.setActiveQueuePairs(2)
    try await queue.submit(Packet(copying: numbered(3), in: lying.pool))
    try await eventually("it goes by its own ring again") { await held(lying, 1) == 1 }
    await lying.side.perform(pair: 1) { $0.releaseAll() }
    try await lying.closeAndCheck()
  }

  @Test func `a full ring over there holds the senders here, and the way back waits for it`() async throws {
    let lying = try await open(lying: .split)
    try await lying.device.setActiveQueuePairs(1)
    let sends = try (0..<60).map { try send($0, lying) }
    try await eventually("the ring is full") { await held(lying, 0) == 16 }
    try await eventually("the others wait") { lying.device.queues[1].statistics.sendersWaiting == 44 }
    try await lying.device.setActiveQueuePairs(2)
    try await Task.sleep(for: .milliseconds(5))
    #expect(await held(lying, 1) == 0)
    try await eventually("what is over there is released, the rest goes by the own ring") {
      await lying.side.perform(pair: 0) { $0.releaseAll() }
      await lying.side.perform(pair: 1) { $0.releaseAll() }
      return sends.allSatisfy { $0.finished == 1 }
    }
    for send in sends { #expect(send.errors.isEmpty) }
    #expect(lying.device.queues[1].statistics.packetsMoved < 60)
    try await lying.closeAndCheck()
  }

  @Test(arguments: [LyingControl.Answer.byte(1), .silence])
  func `a device that refuses to close a pair goes on as before; one that says nothing is not sent anything by it`(
    answer: LyingControl.Answer
  ) async throws {
    let lying = try await open(lying: .split, timeout: .milliseconds(20))
    let (device, queue) = (lying.device, lying.device.queues[1])
    await lying.side.performControl { $0.answer = answer }
    let isRefused = answer == .byte(1)
    await #expect {
      try await device.setActiveQueuePairs(1)
    } throws: { ($0 as? NetworkDeviceError)?.code == (isRefused ? .unsupported : .timedOut) }
    #expect(device.activeQueuePairs == (isRefused ? 2 : 1))
    try await queue.submit(Packet(copying: numbered(1), in: lying.pool))
    try await eventually("it goes where it may") { await held(lying, isRefused ? 1 : 0) == 1 }
    await lying.side.perform(pair: isRefused ? 1 : 0) { $0.releaseAll() }
    try await lying.closeAndCheck()
  }

  @Test func `a device that keeps a frame of a closing pair is told nothing, and the pair goes on`() async throws {
    let lying = try await open(lying: .split)
    let (device, queue) = (lying.device, lying.device.queues[1])
    try await queue.submit(Packet(copying: numbered(1), in: lying.pool))
    try await eventually("it is with the device") { await held(lying, 1) == 1 }
    await #expect {
      try await device.setActiveQueuePairs(1)
    } throws: { ($0 as? NetworkDeviceError)?.code == .busy }
    #expect(await lying.side.performControl { $0.commands.count } == 1)
    #expect(device.activeQueuePairs == 2)
    try await queue.submit(Packet(copying: numbered(2), in: lying.pool))
    try await eventually("it goes by its own ring") { await held(lying, 1) == 2 }
    await lying.side.perform(pair: 1) { $0.releaseAll() }
    try await lying.closeAndCheck()
  }

  @Test(arguments: [RingFormat.split, .packed])
  func `a device that is lost while a pair carries another's frames comes back with both`(
    rings: RingFormat
  ) async throws {
    var recovery = VirtioRecovery()
    recovery.firstDelay = .milliseconds(1)
    recovery.longestDelay = .milliseconds(4)
    let lying = try await open(lying: rings, recovery: recovery)
    try await lying.device.setActiveQueuePairs(1)
    let sent = try send(1, lying)
    try await eventually("it is over there") { await held(lying, 0) == 1 }
    try await lying.loseAndRegain()
    // One pair is what a device uses unasked.
    #expect(await lying.side.performControl { $0.understood } == [])
    try await eventually("it is there again") { await held(lying, 0) == 1 }
    await lying.side.perform(pair: 0) { $0.releaseAll() }
    try await eventually("its sender goes on") { sent.finished == 1 }
    #expect(sent.errors.isEmpty)
    try await lying.device.setActiveQueuePairs(2)
    try await lying.closeAndCheck()
  }

  @Test func `a device that breaks while a pair carries another's frames ends each send with the cause`() async throws {
    let lying = try await open(lying: .split)
    try await lying.device.setActiveQueuePairs(1)
    let sends = try (0..<40).map { try send($0, lying) }
    try await eventually("the ring is full") { await held(lying, 0) == 16 }
    await lying.side.perform(pair: 0) { pair in
      pair.transmit.show([(id: 9999, length: 0)])
      pair.interrupt()
    }
    try await eventually("every send has ended") { sends.allSatisfy { $0.finished == 1 } }
    for send in sends { #expect(send.errors.map { $0.code } == [.broken]) }
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
  }
}
