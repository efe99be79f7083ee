internal import Netdev
internal import Synchronization

/// A device that is open in a check, with the audit between it and its driver.
final class ConformanceBench: Sendable {
  let trial: ConformanceTrial
  let peer: any ConformancePeer
  let device: NetworkDevice
  let interventions: Interventions
  private let audit: AuditedDriver
  private let state = Mutex(State())

  private struct State {
    var inboxes: [ConformanceInbox] = []
    var isClosed = false
  }

  init(
    trial: ConformanceTrial, peer: any ConformancePeer, device: NetworkDevice, audit: AuditedDriver,
    interventions: Interventions
  ) {
    self.trial = trial
    self.peer = peer
    self.device = device
    self.audit = audit
    self.interventions = interventions
  }

  var information: NetworkDeviceInformation { device.information }
  var pool: PacketPool { device.pool }
  var queue: NetworkQueue { device.queues[0] }
  var ledger: SlotLedger { audit.ledgers[0] }
  var ledgers: [SlotLedger] { audit.ledgers }
  var driver: any NetworkDriver { audit }
  var maximumFrameLength: Int { information.maximumFrameLength }
  var minimumFrameLength: Int { trial.suite.minimumFrameLength }

  /// A length that every wire carries and that has room for the headers of a flow.
  func usualLength(_ number: Int = 0) -> Int {
    min(maximumFrameLength, max(minimumFrameLength, 64) + number * 7 % 200)
  }

  /// Frames of usual lengths.
  func frames(_ numbers: Range<Int>, flow: Int = 0) -> [[UInt8]] {
    numbers.map { trial.frame($0, length: usualLength($0), flow: flow) }
  }

  func packet(_ bytes: [UInt8]) throws -> Packet { try Packet(copying: bytes, in: pool) }

  // MARK: Traffic

  /// Starts to receive on a queue.
  func receive(on index: Int = 0) -> ConformanceInbox {
    let inbox = ConformanceInbox(queue: device.queues[index])
    state.withLock { $0.inboxes.append(inbox) }
    return inbox
  }

  /// Sends packets, in order, from a task of its own; it ends when all are released.
  func startSending(_ frames: [[UInt8]], on index: Int = 0) -> ConformanceTask<Void> {
    let queue = device.queues[index]
    let pool = pool
    return ConformanceTask {
      try await queue.run { queue in
        var packets: [Packet] = []
        for bytes in frames { packets.append(try Packet(copying: bytes, in: pool)) }
        try await queue.send(contentsOf: consume packets)
      }
    }
  }

  /// Submits packets one by one from a task of its own; it ends when all are published.
  func startSubmitting(_ frames: [[UInt8]], on index: Int = 0) -> ConformanceTask<Void> {
    let queue = device.queues[index]
    let pool = pool
    return ConformanceTask {
      try await queue.run { queue in
        for bytes in frames { try await queue.submit(Packet(copying: bytes, in: pool)) }
      }
    }
  }

  /// Sends one packet from a task of its own; it ends when its buffer is released.
  func startSend(_ packet: Packet, on index: Int = 0) -> ConformanceTask<Void> {
    let queue = device.queues[index]
    return ConformanceTask { try await queue.send(packet) }
  }

  /// Frames go out, come back in the same order, and their buffers are released.
  func exchange(_ frames: [[UInt8]], through inbox: ConformanceInbox, on index: Int = 0) async throws {
    let sending = startSending(frames, on: index)
    try await expect(frames, in: inbox)
    try await sending.value(in: trial, "every send returns")
  }

  /// The next frames received are these.
  func expect(_ frames: [[UInt8]], in inbox: ConformanceInbox) async throws {
    let first = inbox.expected
    inbox.expect(frames.count)
    try await trial.eventually(
      "\(frames.count) frames come back", seen: { "\(inbox.frames.count - first) came" }
    ) { inbox.frames.count >= first + frames.count }
    let seen = inbox.frames
    for (position, frame) in frames.enumerated() {
      guard let difference = ConformanceFrame.difference(seen[first + position], from: frame) else { continue }
      throw trial.violation(
        "frames come back as they were sent, in order", "frame \(position) of \(frames.count): \(difference)")
    }
  }

  /// Waits until the driver has been armed and the queue looks no more: its loop sleeps, and only the driver wakes it.
  ///
  /// This looks from outside: a look by a job of the loop would be a turn, in which the queue may find what it should be
  /// told of.
  func quiet(on index: Int = 0) async throws {
    let ledger = ledgers[index]
    try await trial.eventually(
      "the loop sleeps when there is nothing to do", seen: { "it keeps turning" }
    ) {
      guard let before = ledger.looksWhenArmed else { return false }
      try? await Task.sleep(for: .milliseconds(10))
      return ledger.looksWhenArmed == before
    }
  }

  /// Waits until the driver has so many frames.
  func waitForFlights(_ count: Int, _ expected: String) async throws {
    try await trial.eventually(expected, seen: { "\(ledger.inFlight) frames are in flight" }) {
      ledger.inFlight >= count
    }
  }

  /// Lets the loop turn once more.
  func turn() async { await queue.run { _ in } }

  // MARK: The end

  /// Closes the device and expects everything to be home. Frames that nobody expected are a violation too.
  func close() async throws {
    guard state.withLock({ $0.isClosed }) == false else { return }
    let device = device
    let closing = ConformanceTask { try await device.close() }
    try await closing.value(in: trial, "the device closes")
    state.withLock { $0.isClosed = true }
    await peer.close()
    let inboxes = state.withLock { $0.inboxes }
    for inbox in inboxes {
      try await inbox.task.value(in: trial, "whoever receives is told of the end")
      inbox.forget()
      guard let expected = inbox.limit else { continue }
      try trial.expect(
        inbox.frames.count <= expected, "\(expected) frames come back, no frame twice", "\(inbox.frames.count) came")
    }
    for ledger in ledgers {
      try trial.expect(ledger.isDrained, "the queue is drained at its end", "it was not")
    }
    let (pool, slots) = (pool, pool.configuration.slots)
    try await trial.eventually(
      "every buffer is back in the pool", seen: { "\(pool.free) of \(slots) are" }
    ) { pool.free == slots }
    trial.forget(self)
  }

  /// Takes down a device of which nothing can be expected any more.
  func abandon() async {
    guard state.withLock({ $0.isClosed }) == false else { return }
    state.withLock { $0.isClosed = true }
    interventions.jam(false)
    peer.letGo()
    let device = device
    let closing = ConformanceTask { try await device.close() }
    let deadline = ContinuousClock.now + min(trial.suite.patience, .seconds(5))
    while !closing.isFinished, ContinuousClock.now < deadline { try? await Task.sleep(for: .milliseconds(1)) }
    await peer.close()
    for inbox in state.withLock({ $0.inboxes }) { inbox.forget() }
  }
}

/// Receives on a queue's loop and keeps a copy of every frame; on request the packets too.
final class ConformanceInbox: Sendable {
  let task: ConformanceTask<Void>
  private let state: Held

  /// Referred to by the receiving task, which does not keep the inbox.
  private final class Held: Sendable {
    let state = Mutex(State())
  }

  private struct State {
    var frames: [[UInt8]] = []
    var bytes = 0
    var packets: [Packet] = []
    var keeps = false
    var expected = 0
    var isCounted = true
  }

  init(queue: NetworkQueue) {
    let held = Held()
    state = held
    task = ConformanceTask {
      await queue.run { queue in
        for await packet in queue.packets {
          let bytes = packet.copiedBytes
          held.state.withLock { state in
            state.frames.append(bytes)
            state.bytes += bytes.count
            if state.keeps { state.packets.append(packet) }
          }
        }
      }
    }
  }

  /// What was received so far.
  var frames: [[UInt8]] { state.state.withLock { $0.frames } }
  var count: Int { state.state.withLock { $0.frames.count } }
  /// Bytes of all that was received so far.
  var bytes: Int { state.state.withLock { $0.bytes } }
  /// Frames expected so far.
  var expected: Int { state.state.withLock { $0.expected } }
  /// Frames that may have been received at the end; nil when that cannot be said.
  var limit: Int? { state.state.withLock { $0.isCounted ? $0.expected : nil } }

  func expect(_ count: Int) { state.state.withLock { $0.expected += count } }
  /// What comes from here on depends on when things happen.
  func stopCounting() { state.state.withLock { $0.isCounted = false } }
  /// From here on packets are kept, or not any more.
  func keep(_ keeps: Bool) { state.state.withLock { $0.keeps = keeps } }
  /// The packets kept.
  var packets: [Packet] { state.state.withLock { $0.packets } }
  /// Lets go of the packets kept.
  func forget() {
    let packets = state.state.withLock { state in
      let packets = state.packets
      state.packets = []
      state.keeps = false
      return packets
    }
    // Outside the lock: their buffers go home, which may wake a loop.
    withExtendedLifetime(packets) {}
  }
}

extension Packet {
  /// The frame's bytes as an array.
  var copiedBytes: [UInt8] {
    withBytes { bytes in unsafe bytes.withUnsafeBytes { unsafe Array($0) } }
  }
}
