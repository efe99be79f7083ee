import NetdevDevices
import Synchronization
import TestSupport
import Testing

/// testpmd dies, as often as it likes: a program that receives and sends goes on when the next one is there.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(10)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct ReconnectTests {
  /// What the URL says of frames that are in flight when the back-end goes away.
  enum InFlightPolicy: String, Sendable, CaseIterable {
    case resubmit, fail
  }

  /// Traffic that never stops: senders that each await a release before they go on, and a loop per queue that checks what
  /// comes back, byte for byte and in each sender's order.
  final class Traffic: Sendable {
    /// Senders of a queue, and so its frames in flight.
    static let senders = 24

    let received = Atomic<Int>(0)
    /// Sends that ended with the loss of the back-end as their error.
    let failed = Atomic<Int>(0)
    let failures = Mutex<[String]>([])
    private let policy: InFlightPolicy
    private let isEnding = Atomic<Bool>(false)

    /// - Parameter policy: what becomes of frames in flight when the back-end goes away.
    init(_ policy: InFlightPolicy = .resubmit) { self.policy = policy }

    func run(on device: NetworkDevice) async throws {
      let senders = Self.senders * device.queues.count
      try await withThrowingTaskGroup(of: Void.self) { group in
        for (position, queue) in device.queues.enumerated() {
          let range = position * Self.senders..<(position + 1) * Self.senders
          group.addTask { await self.receive(from: queue, range, of: senders) }
          for sender in range { group.addTask { await self.send(on: queue, sender, of: senders) } }
        }
        // The receivers end with the device, when the senders have ended.
        for _ in 0..<senders { try await group.next() }
        try await device.close()
        try await group.waitForAll()
      }
    }

    /// The size of a frame: none like the one before it.
    private static func size(of number: Int) -> Int { 60 + number % 197 }

    /// Sends the frames whose numbers belong to this sender, one after the other.
    private func send(on queue: NetworkQueue, _ sender: Int, of senders: Int) async {
      var number = sender
      while !isEnding.load(ordering: .relaxed) {
        do {
          let bytes = Frames.bytes(number, count: Self.size(of: number))
          try await queue.send(Packet(copying: bytes, in: queue.pool))
        } catch {
          guard policy == .fail, error.code == .frameLost else {
            return failures.withLock { $0.append("\(error)") }
          }
          failed.add(1, ordering: .relaxed)
        }
        number += senders
      }
    }

    /// Checks each frame against what was sent. A sender's frame in flight may come twice when it is sent again, and never
    /// after a newer one.
    private func receive(from queue: NetworkQueue, _ range: Range<Int>, of senders: Int) async {
      var last: [Int: Int] = [:]
      for await packet in queue.packets {
        let bytes = packet.array
        let number = bytes.dropFirst(14).prefix(8).reversed().reduce(0) { $0 &<< 8 | Int($1) }
        let isIntact = number >= 0 && bytes == Frames.bytes(number, count: Self.size(of: number), isSwapped: true)
        if !isIntact { failures.withLock { $0.append("\(bytes)") } }
        let sender = number % senders
        if !range.contains(sender) { failures.withLock { $0.append("frame \(number) on the wrong queue") } }
        let oldest = last[sender].map { policy == .resubmit ? $0 : $0 + 1 } ?? 0
        if number < oldest { failures.withLock { $0.append("frame \(number) where \(oldest) was due") } }
        last[sender] = number
        received.add(1, ordering: .relaxed)
      }
    }

    func end() { isEnding.store(true, ordering: .relaxed) }

    /// Waits until so many more have come back.
    func waitForMore(_ count: Int) async throws {
      let target = received.load(ordering: .relaxed) + count
      let deadline = ContinuousClock.now + .seconds(60)
      while received.load(ordering: .relaxed) < target {
        try #require(ContinuousClock.now < deadline, "no more frames: \(received.load(ordering: .relaxed)) so far")
        try await Task.sleep(for: .milliseconds(1))
      }
    }
  }

  func check(_ device: NetworkDevice, _ traffic: Traffic, recoveries: Int) async {
    #expect(traffic.failures.withLock { $0 } == [])
    for queue in device.statistics {
      #expect(queue.packetsReleased + queue.packetsFailed == queue.packetsSubmitted)
      #expect(queue.driver.recoveries == UInt64(recoveries))
      #expect(queue.driver.quarantined == 0)
    }
    // Each failed frame ended one send, and each such send was one frame's.
    let failed = device.statistics.reduce(0) { $0 + $1.packetsFailed }
    #expect(failed == UInt64(traffic.failed.load(ordering: .relaxed)))
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  /// Waits until the driver has brought every queue back so many times: what is received before may be the lost one's.
  func waitForRecovery(_ times: Int, of device: NetworkDevice) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while device.statistics.contains(where: { $0.driver.recoveries < UInt64(times) }) {
      try #require(ContinuousClock.now < deadline, "not back for the \(times). time")
      try await Task.sleep(for: .milliseconds(1))
    }
  }

  @Test(arguments: [("", 100), ("&packed=1&queue_size=257", 10), ("&in_order=1", 10), ("&packed=1&in_order=1", 10)])
  func `killed up to a hundred times under load, with the next one waiting at our socket`(
    _ rings: String, _ kills: Int
  ) async throws {
    let socket = socketPath()
    var peer = try await Testpmd([.init(socket: socket, isClient: true)], waitsForPrompt: false)
    let device = try await open("vhost-user:\(socket)?server=1\(rings)")
    let traffic = Traffic()
    let running = Task { try await traffic.run(on: device) }
    try await traffic.waitForMore(100)
    for kill in 1...kills {
      let next = try await Testpmd([.init(socket: socket, isClient: true)], waitsForPrompt: true)
      await peer.kill()
      peer = next
      try await waitForRecovery(kill, of: device)
      try await traffic.waitForMore(100)
    }
    traffic.end()
    try await running.value
    await check(device, traffic, recoveries: kills)
    await peer.quit()
  }

  @Test(arguments: [1, 2], InFlightPolicy.allCases)
  func `killed under load and started again seconds later, it listening`(
    _ queues: Int, _ policy: InFlightPolicy
  ) async throws {
    try await killAndStart(queues, policy, "")
  }

  @Test(arguments: ["&packed=1&queue_size=257", "&in_order=1", "&packed=1&in_order=1"])
  func `the same with other rings`(_ rings: String) async throws {
    try await killAndStart(2, .resubmit, rings)
  }

  private func killAndStart(_ queues: Int, _ policy: InFlightPolicy, _ rings: String) async throws {
    let socket = socketPath()
    var peer = try await Testpmd([.init(socket: socket, queues: queues)])
    let device = try await open("vhost-user:\(socket)?queues=\(queues)&in_flight=\(policy)\(rings)")
    let changes = device.linkChanges
    let traffic = Traffic(policy)
    let running = Task { try await traffic.run(on: device) }
    for kill in 1...3 {
      try await traffic.waitForMore(1000)
      let before = device.statistics
      // Stopped with every sender waiting, so that there are frames in flight to resubmit or to fail.
      try await peer.freeze()
      try await waitUntilEverySenderWaits(device)
      await peer.kill()
      try await Task.sleep(for: .seconds(2))
      #expect(!device.isLinkUp)
      peer = try await Testpmd([.init(socket: socket, queues: queues)])
      try await waitForRecovery(kill, of: device)
      for (before, now) in zip(before, device.statistics) {
        let resubmitted = now.driver.resubmitted - before.driver.resubmitted
        let failed = now.packetsFailed - before.packetsFailed
        let most = UInt64(Traffic.senders)
        #expect((policy == .resubmit ? 1...most : 0...0).contains(resubmitted))
        #expect((policy == .fail ? 1...most : 0...0).contains(failed))
      }
    }
    try await traffic.waitForMore(1000)
    traffic.end()
    try await running.value
    await check(device, traffic, recoveries: 3)
    var seen: [Bool] = []
    for await change in changes { if case .up = change { seen.append(true) } else { seen.append(false) } }
    #expect(seen == [false, true, false, true, false, true])
    await peer.quit()
  }

  /// Of a peer that is frozen.
  func waitUntilEverySenderWaits(_ device: NetworkDevice) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while device.statistics.contains(where: {
      $0.packetsSubmitted - $0.packetsReleased - $0.packetsFailed < UInt64(Traffic.senders)
    }) {
      try #require(ContinuousClock.now < deadline, "not every sender waits: \(device.statistics)")
      try await Task.sleep(for: .milliseconds(1))
    }
  }

  @Test func `closed while it is away: the exit of its process confirms the reset, and every buffer comes home`()
    async throws
  {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)])
    let device = try await open("vhost-user:\(socket)")
    let traffic = Traffic()
    let running = Task { try await traffic.run(on: device) }
    try await traffic.waitForMore(100)
    await peer.kill()
    while device.isLinkUp { try await Task.sleep(for: .milliseconds(1)) }
    try await device.close()
    traffic.end()
    _ = await running.result
    for failure in traffic.failures.withLock({ $0 }) { #expect(failure.contains("closed"), "\(failure)") }
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}
