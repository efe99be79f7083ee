internal import LibeventConcurrency
internal import Logging
package import Netdev
package import NetdevTesting
package import Testing
package import Virtio
package import VirtioNet

/// A lying device that is open, with a pool that outlives it.
package struct Lying: Sendable {
  package let side: LyingDevice
  package let device: NetworkDevice
  package let pool: PacketPool
  package var queue: NetworkQueue { device.queues[0] }

  /// Opens a device of 16 descriptors a ring.
  package init(
    _ configuration: LyingDevice.Configuration = .init(), options: VirtioNetDriver.Options = .init(),
    pool: PacketPool? = nil, queueSize: Int = 16, queuePairs: Int = 1, resetTimeout: Duration = .seconds(5),
    rings: RingFormat = .split
  ) async throws {
    var (configuration, options) = (configuration, options)
    if rings == .packed {
      configuration.features.insert(.ringPacked)
      options.packedRings = true
    }
    self.pool = if let pool { pool } else { try PacketPool(.init(slots: 512, hugePages: false)) }
    side = LyingDevice(configuration)
    device = try await Self.open(side, options, self.pool, queueSize, queuePairs, resetTimeout)
  }

  package static func open(
    _ side: LyingDevice, _ options: VirtioNetDriver.Options = .init(), _ pool: PacketPool?, _ queueSize: Int = 16,
    _ queuePairs: Int = 1, _ resetTimeout: Duration = .seconds(5)
  ) async throws -> NetworkDevice {
    var settings = NetworkDevice.Configuration()
    settings.pool = pool
    settings.queueSize = queueSize
    settings.queuePairs = queuePairs
    settings.resetTimeout = resetTimeout
    settings.logger.logLevel = .error
    return try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: side, options: options), configuration: settings)
  }

  /// One that is looked for when it is lost.
  package static func lookedFor(
    _ rings: RingFormat = .split, _ inFlight: VirtioRecovery.InFlight = .resubmit, slots: Int = 512
  ) async throws -> Lying {
    var configuration = LyingDevice.Configuration()
    configuration.recovery = VirtioRecovery()
    configuration.recovery?.inFlight = inFlight
    configuration.recovery?.firstDelay = .milliseconds(1)
    configuration.recovery?.longestDelay = .milliseconds(4)
    return try await Lying(configuration, pool: try PacketPool(.init(slots: slots, hugePages: false)), rings: rings)
  }

  /// Loses the device and waits until it is back.
  package func loseAndRegain(isGone: @escaping @Sendable () -> Bool = { true }) async throws {
    let before = queue.statistics.driver.recoveries
    side.lose(isGone: isGone)
    try await eventually("the device is back") { queue.statistics.driver.recoveries > before }
    try await eventually("the link is up") { device.isLinkUp }
  }

  /// Frames that the device holds.
  package func held() async -> Int { await side.perform { $0.transmit.held.count } ?? 0 }

  /// Closes, and expects every buffer to be home.
  package func closeAndCheck(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    try await device.close()
    try await eventually("every buffer is back", sourceLocation: sourceLocation) {
      pool.free == pool.configuration.slots
    }
  }

  /// Opens the same device again on the same pool and exchanges a frame each way: nothing of what was before is left.
  package func checkReopening(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    side.resetBehaviour = .confirm
    let slots = pool.free
    let again = try await Self.open(side, .init(), pool)
    let queue = again.queues[0]
    await side.perform { $0.whenKicked = { $0.loopBack() } }
    let received = Task { () -> [UInt8]? in
      for await packet in queue.packets { return packet.array }
      return nil
    }
    try await queue.send(Packet(copying: numbered(77), in: pool))
    #expect(await received.value == numbered(77), sourceLocation: sourceLocation)
    try await again.close()
    try await eventually("every buffer is back again", sourceLocation: sourceLocation) { pool.free == slots }
  }
}

/// One thing that a device does which no device may do.
package struct Lie: Sendable, CustomTestStringConvertible {
  package let testDescription: String
  package let act: @Sendable (LyingPair) -> Void

  package init(_ name: String, _ act: @escaping @Sendable (LyingPair) -> Void) {
    testDescription = name
    self.act = act
  }
}

/// Traffic both ways, then the lie: the queue breaks, everybody who waits goes on, every buffer comes home, and the device can
/// be opened again.
package func expectBroken(
  by lie: Lie, _ configuration: LyingDevice.Configuration = .init(), senders: Int = 20, rings: RingFormat = .split,
  sourceLocation: SourceLocation = #_sourceLocation
) async throws {
  let lying = try await Lying(configuration, rings: rings)
  let queue = lying.queue
  let runner = Outcome()
  let consumer = Outcome()
  let closing = Outcome()
  Task { await runner.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
  Task { await consumer.record { for await _ in queue.packets {} } }
  Task { await closing.record { try await queue.closed() } }
  let sends = (0..<senders).map { _ in Outcome() }
  for (number, send) in sends.enumerated() {
    let packet = try Packet(copying: numbered(number), in: lying.pool)
    Task { await send.record { try await queue.send(packet) } }
  }
  try await eventually("the ring is full", sourceLocation: sourceLocation) { await lying.held() == min(16, senders) }
  let waiting = UInt64(max(0, senders - 16))
  try await eventually("the others wait", sourceLocation: sourceLocation) { queue.statistics.ringFull == waiting }

  await lying.side.perform { pair in
    lie.act(pair)
    pair.interrupt()
  }

  try await eventually("run ends", sourceLocation: sourceLocation) { runner.finished == 1 }
  #expect(runner.errors.map { $0.code } == [.broken], sourceLocation: sourceLocation)
  try await eventually("who waits for the end goes on", sourceLocation: sourceLocation) { closing.finished == 1 }
  #expect(closing.errors.map { $0.code } == [.broken], sourceLocation: sourceLocation)
  try await eventually("the consumer goes on", sourceLocation: sourceLocation) { consumer.finished == 1 }
  try await eventually("every send ends", sourceLocation: sourceLocation) { sends.allSatisfy { $0.finished == 1 } }
  for send in sends { #expect(send.errors.allSatisfy { $0.code == .broken }, sourceLocation: sourceLocation) }
  try await eventually("every buffer is back", sourceLocation: sourceLocation) {
    lying.pool.free == lying.pool.configuration.slots
  }
  try await lying.checkReopening(sourceLocation: sourceLocation)
  #expect(sends.allSatisfy { $0.finished == 1 }, sourceLocation: sourceLocation)
}
