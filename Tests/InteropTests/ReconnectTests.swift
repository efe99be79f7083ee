import NetdevDevices
import Synchronization
import Testing

/// testpmd dies, as often as it likes: a program that receives and sends goes on when the next one is there.
@Suite(.serialized, .timeLimit(.minutes(10)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct ReconnectTests {
  /// Traffic that never stops: senders that await each release, and a loop that counts what comes back.
  final class Traffic: Sendable {
    let sent = Atomic<Int>(0)
    let received = Atomic<Int>(0)
    let failures = Mutex<[String]>([])
    private let isEnding = Atomic<Bool>(false)

    func run(on device: NetworkDevice) async throws {
      try await withThrowingTaskGroup(of: Void.self) { group in
        for queue in device.queues {
          group.addTask {
            for await packet in queue.packets {
              let bytes = packet.array
              if bytes.count < 60 || bytes[12] != 0x88 { self.failures.withLock { $0.append("\(bytes)") } }
              self.received.add(1, ordering: .relaxed)
            }
          }
          for sender in 0..<4 {
            group.addTask {
              var number = sender
              while !self.isEnding.load(ordering: .relaxed) {
                let bytes = Frames.bytes(number, count: 60)
                do {
                  try await queue.send(Packet(copying: bytes, in: queue.pool))
                  self.sent.add(1, ordering: .relaxed)
                } catch {
                  self.failures.withLock { $0.append("\(error)") }
                  return
                }
                number += 4
              }
            }
          }
        }
        // The receivers end with the device, when the senders have ended.
        for _ in 0..<(4 * device.queues.count) { try await group.next() }
        try await device.close()
        try await group.waitForAll()
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
      #expect(queue.packetsFailed == 0)
      #expect(queue.packetsReleased == queue.packetsSubmitted)
      #expect(queue.driver.recoveries == UInt64(recoveries))
      #expect(queue.driver.quarantined == 0)
    }
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  /// A hundred times where that takes two minutes at most, as on two quiet cores; on a busy machine as often as it can, twenty
  /// times at least.
  @Test func `killed a hundred times under load, with the next one waiting at our socket`() async throws {
    let socket = socketPath()
    var peer = try await Testpmd([.init(socket: socket, isClient: true)], waitsForPrompt: false)
    let device = try await open("vhost-user:\(socket)?server=1")
    let traffic = Traffic()
    let running = Task { try await traffic.run(on: device) }
    try await traffic.waitForMore(100)
    var kills = 0
    let deadline = ContinuousClock.now + .seconds(110)
    while kills < 20 || (kills < 100 && ContinuousClock.now < deadline) {
      kills += 1
      let next = try await Testpmd([.init(socket: socket, isClient: true)], waitsForPrompt: true)
      await peer.kill()
      peer = next
      try await traffic.waitForMore(100)
    }
    traffic.end()
    try await running.value
    await check(device, traffic, recoveries: kills)
    await peer.quit()
  }

  @Test(arguments: [1, 2])
  func `killed under load and started again seconds later, it listening`(_ queues: Int) async throws {
    let socket = socketPath()
    var peer = try await Testpmd([.init(socket: socket, queues: queues)])
    let device = try await open("vhost-user:\(socket)?queues=\(queues)")
    let changes = device.linkChanges
    let traffic = Traffic()
    let running = Task { try await traffic.run(on: device) }
    for _ in 0..<3 {
      try await traffic.waitForMore(1000)
      await peer.kill()
      try await Task.sleep(for: .seconds(2))
      #expect(!device.isLinkUp)
      peer = try await Testpmd([.init(socket: socket, queues: queues)])
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
