internal import Glibc
internal import LibeventConcurrency
internal import Netdev
internal import PacketFormats
internal import Synchronization

/// Opening, cancelling, closing, breaking.
extension ConformanceTrial {
  func opensAsPromised() async throws {
    let pairs = can(.severalPairs) ? 2 : 1
    let bench = try await open(queuePairs: pairs)
    let about = bench.information
    try expect(!about.name.isEmpty, "the device has a name", "an empty one")
    try expect(
      about.hardwareAddress?.isUnicast == true, "the hardware address is that of one station",
      about.hardwareAddress.map { "it is \($0)" } ?? "there is none")
    try expect(about.mtu >= 68, "an MTU of at least 68 bytes (RFC 791)", "\(about.mtu)")
    try expect(about.queuePairs == pairs, "\(pairs) queue pairs, as asked for", "\(about.queuePairs)")
    try expect(about.headroom >= 0, "a headroom", "\(about.headroom)")
    try expect(about.receiveBufferSize > 0, "receive buffers of some size", "\(about.receiveBufferSize)")
    for ledger in bench.ledgers {
      try expect(
        (1...about.queueSize).contains(ledger.capacity), "a ring that holds 1 to \(about.queueSize) frames",
        "it says \(ledger.capacity)")
      try expect(ledger.posted > 0, "reception wants buffers from the start", "it wanted none")
    }
    for wish in [0, 70_000] {
      let joint = try await join(queuePairs: 1)
      let driver = joint.driver
      driver.attach(control: try Self.makeControl())
      let starting = ConformanceTask { try await driver.start(NetworkDriverRequest(queuePairs: wish)) }
      try await eventually("start answers") { starting.isFinished }
      await shutDown(joint)
      try expect(
        starting.failure != nil, "a wish for \(wish) queue pairs is refused with an error",
        "\(starting.result.map { "\($0)" } ?? "nothing")")
    }
  }

  /// A control plane without a device.
  private static func makeControl() throws -> DeviceControl {
    DeviceControl(loop: try LoopExecutor(name: "conformance"))
  }

  /// Ends a driver that no device was made of.
  private func shutDown(_ joint: DriverConformance.Joint) async {
    try? await joint.driver.reset(timeout: suite.patience)
    await joint.driver.shutDown()
    await joint.peer.close()
  }

  func resetsAtAnyTime() async throws {
    let joint = try await join(queuePairs: 1)
    let (driver, patience) = (joint.driver, suite.patience)
    driver.attach(control: try Self.makeControl())
    let life = ConformanceTask {
      _ = try await driver.start(NetworkDriverRequest(queuePairs: 1))
      try await driver.reset(timeout: patience)
      try await driver.reset(timeout: patience)
      await driver.shutDown()
    }
    defer { withExtendedLifetime(joint) {} }
    try await life.value(in: self, "a driver that was only started can be reset twice and shut down")
    await joint.peer.close()
    let bench = try await open()
    let inbox = bench.receive()
    try await bench.exchange(bench.frames(0..<10), through: inbox)
    // The device resets itself once more when it is closed.
    let reset = ConformanceTask { [audit = bench.driver] in try await audit.reset(timeout: patience) }
    try await reset.value(in: self, "an open device can be reset")
  }

  func cancelledSendIsNotSent() async throws {
    let bench = try await open()
    let inbox = bench.receive()
    let queue = bench.queue
    // What is accepted and cannot be published is a burst at most.
    let count = can(.peerHoldsBuffers) ? bench.ledger.capacity : min(64, bench.ledger.capacity)
    if can(.peerHoldsBuffers) { bench.peer.hold() } else { bench.interventions.jam(true) }
    let frames = bench.frames(0..<count)
    let submitting = bench.startSubmitting(frames)
    try await submitting.value(in: self, "\(count) frames find room")
    let victim = bench.startSend(try bench.packet(bench.frames(5000..<5001)[0]))
    try await eventually("the next send waits for room") { queue.statistics.ringFull > 0 }
    try expect(!victim.isFinished, "a send waits for room", "it ended: \(victim.result.map { "\($0)" } ?? "")")
    victim.cancel()
    try await eventually("a cancelled send returns") { victim.isFinished }
    try expect(victim.failure == .cancelled, "it throws cancelled", "\(victim.result.map { "\($0)" } ?? "nothing")")
    bench.peer.letGo()
    bench.interventions.jam(false)
    await bench.turn()
    try await bench.expect(frames, in: inbox)
    try await bench.exchange(bench.frames(6000..<6010), through: inbox)
    try expect(
      bench.ledger.submitted == count + 10, "\(count + 10) frames are sent", "\(bench.ledger.submitted) were")
  }

  func cancelledRunEnds() async throws {
    let bench = try await open()
    let device = bench.device
    let outcomes = Outcomes()
    if can(.peerHoldsBuffers) { bench.peer.hold() }
    let running = ConformanceTask {
      try await device.run { queue in
        await withTaskGroup(of: Void.self) { group in
          for number in 0..<8 {
            group.addTask {
              await outcomes.send(self.frame(number, length: 60), on: queue, until: { Task.isCancelled })
            }
          }
        }
      }
    }
    if can(.peerHoldsBuffers) {
      try await bench.waitForFlights(8, "8 frames are in flight")
    } else {
      try await eventually("frames are sent") { bench.ledger.submitted >= 64 }
    }
    running.cancel()
    try await eventually("a cancelled run ends") { running.isFinished }
    if case .failure(let error)? = running.result {
      try expect(error is CancellationError, "run throws CancellationError", "\(error)")
    } else {
      throw violation("run throws CancellationError", "it returned")
    }
    try expect(outcomes.ended == 8, "every send returns", "\(outcomes.ended) of 8 senders did")
    let wrong = outcomes.codes.filter { $0 != .closed && $0 != .cancelled }
    try expect(wrong.isEmpty, "sends that fail throw closed or cancelled", "\(wrong)")
    bench.peer.letGo()
  }

  func closesWithSendsInFlight() async throws {
    let bench = try await open()
    let device = bench.device
    let inbox = bench.receive()
    inbox.stopCounting()
    let outcomes = Outcomes()
    let capacity = bench.ledger.capacity
    let senders = can(.peerHoldsBuffers) ? capacity + 4 : 16
    if can(.peerHoldsBuffers) { bench.peer.hold() }
    let sending = (0..<senders).map { number in
      ConformanceTask { [queue = bench.queue] in
        await outcomes.send(self.frame(number, length: 60), on: queue, until: { false })
      }
    }
    if can(.peerHoldsBuffers) {
      let queue = bench.queue
      // A frame may take two places in a ring: half of them are in flight at least when others wait.
      try await bench.waitForFlights(capacity / 2, "frames are in flight")
      try await eventually("4 senders wait for room") { queue.statistics.ringFull >= 4 }
    } else {
      try await eventually("frames are sent") { bench.ledger.submitted >= 500 }
    }
    let closing = ConformanceTask { try await device.close() }
    try await closing.value(in: self, "the device closes")
    try await eventually("every send returns", seen: { "\(outcomes.ended) of \(senders) did" }) {
      sending.allSatisfy { $0.isFinished }
    }
    try expect(
      outcomes.codes.count == senders && outcomes.codes.allSatisfy { $0 == .closed },
      "each of \(senders) senders is told once that the device is closed", "\(outcomes.codes)")
    let counts = bench.queue.statistics
    try expect(
      counts.packetsReleased + counts.packetsFailed >= counts.packetsSubmitted,
      "every submitted frame is released or fails",
      "\(counts.packetsSubmitted) submitted, \(counts.packetsReleased) released, \(counts.packetsFailed) failed")
    bench.peer.letGo()
  }

  func brokenEndIsThrown() async throws {
    let bench = try await open()
    let device = bench.device
    log.expectBreakage()
    if can(.peerHoldsBuffers) { bench.peer.hold() }
    let outcomes = Outcomes()
    let sender = ConformanceTask { [queue = bench.queue] in
      await outcomes.send(self.frame(0, length: 60), on: queue, until: { false })
    }
    let running = ConformanceTask { try await device.run { queue in for await _ in queue.packets {} } }
    try await eventually("a frame is sent") { bench.ledger.submitted > 0 }
    let cause = NetworkDeviceError(.broken, "the check", offered: "a queue that breaks")
    bench.interventions.breakQueue(cause)
    try await eventually("run ends when a queue breaks") {
      await bench.turn()
      return running.isFinished
    }
    if case .failure(let error)? = running.result {
      try expect(error as? NetworkDeviceError == cause, "run throws the cause", "\(error)")
    } else {
      throw violation("run throws the cause", "it returned")
    }
    try await sender.value(in: self, "whoever sends is told")
    try expect(outcomes.codes == [.broken], "sends fail with the cause", "\(outcomes.codes)")
    bench.peer.letGo()
  }

  func returnsEveryBuffer() async throws {
    // Nothing was sent; then all of the ring was used.
    try await open().close()
    let bench = try await open()
    let inbox = bench.receive()
    for round in 0..<3 { try await bench.exchange(bench.frames(round * 200..<round * 200 + 200), through: inbox) }
    try await bench.close()
  }

  func quietAfterReset() async throws {
    let bench = try await open()
    bench.peer.hold()
    let count = min(32, bench.ledger.capacity)
    let submitting = bench.startSubmitting(bench.frames(0..<count))
    try await submitting.value(in: self, "\(count) frames are submitted")
    await bench.turn()
    let device = bench.device
    let closing = ConformanceTask { try await device.close() }
    try await closing.value(in: self, "the device closes")
    let pool = bench.pool
    let slots = pool.configuration.slots
    try await eventually("every buffer is back in the pool", seen: { "\(pool.free) of \(slots)" }) {
      pool.free == slots
    }
    // All of the pool's memory that is not kept for reception, in our hands.
    let size = pool.configuration.slotSize - pool.configuration.headroom
    let pattern = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) }
    var packets: [Packet] = []
    while true {
      let packet = try Packet(copying: pattern, in: pool)
      guard packet.isInPool else { break }
      packets.append(packet)
    }
    bench.peer.letGo()
    for _ in 0..<20 {
      try await Task.sleep(for: .milliseconds(10))
      for packet in packets {
        guard let difference = ConformanceFrame.difference(packet.copiedBytes, from: pattern) else { continue }
        throw violation("after reset nobody writes to the buffers", difference)
      }
    }
  }

  func opensAgain() async throws {
    let first = try await open()
    let pool = first.pool
    let inbox = first.receive()
    try await first.exchange(first.frames(0..<50), through: inbox)
    try await first.close()
    let closing = ConformanceTask { [device = first.device] in try await device.close() }
    try await closing.value(in: self, "closing a second time waits for the same end")
    let descriptors = Self.openDescriptors
    let cycles = 8
    for _ in 0..<cycles {
      let bench = try await open(pool: pool)
      let inbox = bench.receive()
      try await bench.exchange(bench.frames(0..<50), through: inbox)
      try await bench.close()
    }
    // Loops and what else is let go of may take a moment.
    try await eventually(
      "\(cycles) openings leave no descriptor open",
      seen: { "\(descriptors) were open before, \(Self.openDescriptors) after" }
    ) { Self.openDescriptors < descriptors + cycles }
  }

  /// Descriptors of this process.
  private static var openDescriptors: Int {
    var count = 0
    for descriptor in 0..<CInt(4096) where fcntl(descriptor, F_GETFD) >= 0 { count += 1 }
    return count
  }

  func goesOnAfterStarving() async throws {
    let capacity = try await open().ledger.capacity
    let layout = try await poolLayout(slots: 2 * capacity + 64)
    let pool = try PacketPool(layout)
    let bench = try await open(pool: pool)
    let inbox = bench.receive()
    inbox.stopCounting()
    inbox.keep(true)
    // One packet, sent again and again: what is received takes the buffers.
    let packet = try bench.packet(bench.frames(1..<2)[0])
    let last = bench.frames(9..<10)[0]
    let marker = try bench.packet(last)
    let sending = ConformanceTask { [queue = bench.queue] in
      try await queue.run { queue in
        for _ in 0..<layout.slots + 32 { try await queue.submit(packet) }
      }
    }
    let queue = bench.queue
    try await eventually(
      "reception uses up the pool", seen: { "\(bench.ledger.posted) buffers are still posted, \(pool.free) free" }
    ) {
      let starved = queue.statistics.starved
      return starved > 0 && bench.ledger.posted == 0
    }
    inbox.forget()
    try await sending.value(in: self, "what was submitted goes out when buffers are back")
    // The wire may have dropped what nobody could receive; what is sent now arrives.
    try await eventually("frames are received again", seen: { "nothing was" }) {
      let again = bench.startSend(marker)
      for _ in 0..<200 where !inbox.frames.contains(last) { try? await Task.sleep(for: .milliseconds(1)) }
      return inbox.frames.contains(last) && again.isFinished
    }
  }
}

/// How senders ended, and why.
private final class Outcomes: Sendable {
  private let state = Mutex<(ended: Int, codes: [NetworkDeviceError.Code])>((0, []))
  var ended: Int { state.withLock { $0.ended } }
  var codes: [NetworkDeviceError.Code] { state.withLock { $0.codes } }

  /// Sends a frame again and again until that fails or is not wanted any more.
  func send(_ frame: [UInt8], on queue: NetworkQueue, until isEnough: () -> Bool) async {
    defer { state.withLock { $0.ended += 1 } }
    do throws(NetworkDeviceError) {
      while !isEnough() { try await queue.send(Packet(copying: frame, in: queue.pool)) }
    } catch {
      state.withLock { $0.codes.append(error.code) }
    }
  }
}
