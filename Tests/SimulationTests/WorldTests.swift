import Foundation
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import Synchronization
import Testing

/// A world by itself: its clock, its order, and what it finds wrong.
@Suite struct WorldTests {
  @Test func `an hour's sleep takes no time`() async throws {
    let began = ContinuousClock.now
    try await Simulation(seed: 1).run { world in
      let before = world.now
      try await Task.sleep(for: .seconds(3600))
      try await Task.sleep(nanoseconds: 3600 * 1_000_000_000)
      try await ContinuousClock().sleep(until: .now + .seconds(3600))
      try await SuspendingClock().sleep(until: .now + .seconds(3600))
      #expect(world.now - before >= .seconds(4 * 3600))
    }
    #expect(ContinuousClock.now - began < .seconds(1800))
  }

  @Test func `tasks, children and yields stay in the world`() async throws {
    let sum = try await Simulation(seed: 2).run { world in
      await withTaskGroup(of: Int.self) { group in
        for number in 0..<10 {
          group.addTask {
            for _ in 0..<number { await Task.yield() }
            try? await Task.sleep(for: .seconds(number))
            return number
          }
        }
        return await group.reduce(0, +)
      }
    }
    #expect(sum == 45)
  }

  @Test func `calls that may block are steps of their own, in their order`() async throws {
    var counts: Set<Int> = []
    for seed in 0..<40 as Range<UInt64> {
      let count = try await Simulation(seed: seed).run { _ in
        let noted = Noted()
        let queue = BlockingQueue()
        for number in 1...3 { queue.start { noted.numbers.withLock { $0.append(number) } } }
        #expect(noted.numbers.withLock { $0.isEmpty })
        for _ in 0..<2 { await Task.yield() }
        let count = noted.numbers.withLock { $0.count }
        queue.finish()
        #expect(noted.numbers.withLock { $0 } == [1, 2, 3])
        return count
      }
      counts.insert(count)
    }
    #expect(counts == [0, 3], "they are made at any moment, or when somebody waits for them")
  }

  private final class Noted: Sendable {
    let numbers = Mutex<[Int]>([])
  }

  @Test(arguments: 0..<20) func `frames go round`(seed: UInt64) async throws {
    try await Simulation(seed: seed).run { world in try await goRound(world, "loopback:?lossless=1&queues=2") }
  }

  @Test(arguments: 0..<20) func `frames go round between loops`(seed: UInt64) async throws {
    try await Simulation(seed: seed).run { world in try await goRound(world, "loopback:?lossless=1&placement=own") }
  }

  @Test func `the same seed gives the same trace`() async throws {
    var reports: [Simulation.Report] = []
    for seed: UInt64 in [3, 3, 4] {
      var simulation = Simulation(seed: seed)
      simulation.limits.traceLines = .max
      reports.append(
        await simulation.observe { world in try await goRound(world, "loopback:?lossless=1&placement=own") })
    }
    #expect(reports[0].trace == reports[1].trace)
    #expect(reports[0].fingerprint == reports[1].fingerprint)
    #expect(reports[0].fingerprint != reports[2].fingerprint)
    #expect(reports.allSatisfy { $0.findings.isEmpty })
  }
}

// snippet
private let environment = ProcessInfo.processInfo.environment
private let firstSeed = environment["SEED"].flatMap { UInt64($0) } ?? 0
private let seedCount = environment["SEEDS"].flatMap { UInt64($0) } ?? (environment["SEED"] == nil ? 20 : 1)

@Test(arguments: firstSeed..<firstSeed + seedCount)
func `a cancelled program leaves nothing behind`(seed: UInt64) async {
  var simulation = Simulation(seed: seed)
  simulation.disturbances = [.cancellation, .emptyPool]
  let report = await simulation.observe { world in
    let device = try await world.open("loopback:?lossless=1")
    let packet = try Packet(copying: [UInt8](repeating: 0xff, count: 64), in: device.pool)
    try await device.queues[0].send(packet)
    try await device.close()
  }
  // Who is cancelled may throw that, and need not have done all it was for; what the world finds is wrong all the same.
  let wasCancelled = report.happened.contains("the program is cancelled")
  let isFine = report.findings.isEmpty && (report.error == nil || wasCancelled)
  #expect(isFine, "SEED=\(seed) swift test --filter 'a cancelled program leaves nothing behind'\n\(report)")
}
// end

/// The page's examples, compiled, and compared with what is printed.
@Suite struct SimulationPageTests {
  // snippet
  @Test(arguments: 0..<50) func `every frame is echoed, whatever the order of events`(seed: UInt64) async throws {
    try await Simulation(seed: seed).run { world in
      let device = try await world.open("loopback:?lossless=1&queues=2")
      try await device.run { queue in
        let sender = Task.detached {
          for number in 0..<20 {
            try await queue.send(try Packet(copying: [UInt8](repeating: UInt8(number), count: 64), in: queue.pool))
            if world.chance(oneIn: 4) { try await Task.sleep(for: .milliseconds(world.choose(below: 10))) }
          }
        }
        var seen = 0
        for await _ in queue.packets {
          seen += 1
          if seen == 20 { break }
        }
        try await sender.value
      }
    }
  }
  // end

  // snippet
  @Test(arguments: 0..<50) func `a frame is sent, whenever the switch dies`(seed: UInt64) async throws {
    try await Simulation(seed: seed).run { world in
      let path = FileManager.default.temporaryDirectory.appending(path: "switch-\(getpid())").path
      let peer = try VhostUserPeer(world, path: path)
      peer.whenDriven = { pair in
        pair.whenKicked = { $0.loopBack() }
        pair.loopBack()
      }
      defer { peer.end() }
      peer.begin()
      while !FileManager.default.fileExists(atPath: path) { try await Task.sleep(for: .milliseconds(1)) }
      let device = try await world.open("vhost-user:\(path)")
      world.mayHappen("the switch dies") {
        peer.exit()
        peer.begin()
      }
      let packet = try Packet(copying: [UInt8](repeating: 0xff, count: 64), in: device.pool)
      try await device.queues[0].send(packet)
      try await device.close()
    }
  }
  // end

  @Test(arguments: [
    "Tests/SimulationTests/WorldTests.swift", "Tests/SimulationTests/SweepExampleTests.swift",
    "Simulate/Sources/Simulate/Worlds/Kernel.swift",
  ])
  func `examples are printed as they are compiled`(file: String) throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
    func read(_ path: String) throws -> [String] {
      lines(of: try String(contentsOf: root.appending(path: path), encoding: .utf8))
    }
    let page = try read("Sources/Netdev/Netdev.docc/Simulation.md")
    var rest = try read(file)[...]
    var count = 0
    while let start = rest.firstIndex(of: "// snippet") {
      let end = try #require(rest[start...].firstIndex(of: "// end"))
      let snippet = rest[(start + 1)..<end]
      rest = rest[(end + 1)...]
      let heading = try #require(snippet.first)
      let first = try #require(page.firstIndex(of: heading))
      #expect(page[first...].prefix(snippet.count).elementsEqual(snippet))
      #expect(page[first...].dropFirst(snippet.count).first == "```")
      count += 1
    }
    #expect(count > 0)
  }

  private func lines(of text: String) -> [String] {
    text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
  }
}

/// Ten frames a queue pair, sent and seen again.
func goRound(_ world: SimulatedWorld, _ url: String) async throws {
  let device = try await world.open(url)
  try await device.run { queue in
    for number in 0..<10 {
      try await queue.send(try Packet(copying: [UInt8](repeating: UInt8(number), count: 64), in: queue.pool))
    }
    var next: UInt8 = 0
    for await packet in queue.packets {
      let first = packet.withBytes { bytes in unsafe bytes.unsafeLoad(fromByteOffset: 0, as: UInt8.self) }
      #expect(first == next)
      next += 1
      if next == 10 { break }
    }
  }
}
