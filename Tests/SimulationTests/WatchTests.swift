import Glibc
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import Testing

/// What is said of a world from outside, while it cannot say anything itself.
@Suite struct WatchTests {
  private static func lines(_ result: ExitTest.Result) -> [Substring] {
    String(decoding: result.standardErrorContent, as: UTF8.self).split(separator: "\n")
      .filter { $0.hasPrefix("simulation: ") }
  }

  @Test func `a program that does not come back is told, once a step`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      var simulation = Simulation(seed: 5)
      simulation.limits.stepMilliseconds = 200
      try await simulation.run { _ in
        await Task.yield()
        usleep(1_000_000)
      }
    }
    #expect(Self.lines(result) == ["simulation: seed 5, step 3: the program has not come back for 200 ms"])
  }

  @Test func `a world that waits for other threads is not one that does not come back`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      var simulation = Simulation(seed: 5)
      simulation.limits.stepMilliseconds = 100
      _ = await simulation.observe { _ in await Program.end() }
    }
    #expect(Self.lines(result) == [])
  }

  @Test func `a trap says the seed and the step`() async throws {
    let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await Simulation(seed: 7).run { world in
        await Task.yield()
        precondition(world.choose(below: 1) == 1, "it must be")
      }
    }
    #expect(Self.lines(result) == ["simulation: seed 7, step 3: trapped"])
  }

  @Test func `so does who calls himself without end, and who aborts`() async throws {
    let overflow = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await Simulation(seed: 7).run { world in
        await Task.yield()
        world.note("\(Program.depth(world, 1))")
      }
    }
    #expect(Self.lines(overflow) == ["simulation: seed 7, step 3: trapped"])
    let abortion = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try await Simulation(seed: 7).run { _ in Program.end(by: SIGABRT) }
    }
    #expect(Self.lines(abortion) == ["simulation: seed 7, step 1: trapped"])
  }

  @Test func `a world that is over opens nothing, and what is found in it is said`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      let world = try await Simulation(seed: 7).run { $0 }
      world.find("something")
      await #expect(throws: NetworkDeviceError.self) { try await world.open("loopback:") }
    }
    #expect(Self.lines(result).count == 1)
    let line = Self.lines(result).first ?? ""
    #expect(line.hasPrefix("simulation: seed 7 is over, and ") && line.hasSuffix(" says: something"), "\(line)")
  }

  /// Nothing ends these waits: a line is all that can be had of them.
  @Test(.timeLimit(.minutes(5))) func `who waits for a world that is over is told, once a loop`() async throws {
    let result = try await #require(processExitsWith: .success, observing: [\.standardErrorContent]) {
      let errors = try #require(Errors())
      let uses: [@Sendable (NetworkDevice, NetworkQueue) async throws -> Void] = [
        { _, queue in try await queue.sleep(for: .milliseconds(1)) },
        { _, queue in try await queue.clock.sleep(for: .milliseconds(1)) },
        { _, queue in try await queue.send(try Packet(copying: [UInt8](repeating: 0, count: 64), in: queue.pool)) },
        { _, queue in try await queue.submit(try Packet(copying: [UInt8](repeating: 0, count: 64), in: queue.pool)) },
        { _, queue in for await _ in queue.packets {} },
        { device, _ in try await device.run { _ in } },
        { device, _ in try await device.close() },
      ]
      for (number, use) in uses.enumerated() {
        let kept = Kept()
        let report = await Simulation(seed: UInt64(number)).observe { world in
          let device = try await world.open("loopback:")
          kept.device = device
          if number % 2 == 0 { try await device.close() }
        }
        let device = try #require(kept.device, "\(report)")
        Kept.all.devices.append(device)
        Task.detached { try await use(device, device.queues[0]) }
        let line = errors.line()
        #expect(
          line.hasPrefix("simulation: seed \(number) is over, and a thread of the runtime's pool (number ")
            && line.contains(") woke its loop '") && line.hasSuffix("', which does not go on"), "\(number): \(line)")
      }
      // Of a queue of a closed device there is nothing left to do.
      let kept = Kept()
      _ = await Simulation(seed: 20).observe { world in
        let device = try await world.open("loopback:")
        kept.queue = device.queues[0]
        try await device.close()
      }
      kept.queue = nil
      // In a later world it is a wait for ever.
      _ = await Simulation(seed: 21).observe { world in Kept.all.device = try await world.open("loopback:") }
      let later = await Simulation(seed: 22).observe { _ in try await Kept.all.device?.close() }
      #expect(later.findings.first?.hasPrefix("a wait for ever") == true, "\(later)")
      let line = errors.line()
      #expect(
        line
          == "simulation: seed 21 is over, and the world of seed 22 woke its loop 'netdev-control', which does not go on"
      )
      errors.end()
    }
    #expect(Self.lines(result) == [])
  }

  /// Of a closed device that needs no loop; `send` has to come to its queue first, which nobody turns: that is told.
  @Test(.timeLimit(.minutes(5))) func `who submits to a closed device after its world is told at once`() async throws {
    let kept = Kept()
    let report = await Simulation(seed: 1).observe { world in
      let device = try await world.open("loopback:")
      kept.device = device
      try await device.close()
    }
    let device = try #require(kept.device, "\(report)")
    Kept.all.devices.append(device)
    let queue = device.queues[0]
    func packet() throws -> Packet { try Packet(copying: [UInt8](repeating: 0, count: 64), in: device.pool) }
    for _ in 0..<3 {
      let submitted = await #expect(throws: NetworkDeviceError.self) { try await queue.submit(try packet()) }
      let tried = #expect(throws: NetworkDeviceError.self) { _ = try queue.trySubmit(try packet()) }
      #expect(submitted?.code == .closed && tried?.code == .closed)
    }
  }

  /// The process' standard error, read by itself.
  private struct Errors {
    private let ends: [CInt]
    private let before = dup(2)

    init?() {
      var ends: [CInt] = [0, 0]
      guard unsafe pipe(&ends) == 0, dup2(ends[1], 2) == 2 else { return nil }
      self.ends = ends
    }

    /// The next line, as it comes; nothing when none has come for a minute.
    func line() -> String {
      var bytes: [UInt8] = []
      var entry = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
      while unsafe poll(&entry, 1, 60_000) > 0 {
        var byte: UInt8 = 0
        guard unsafe read(ends[0], &byte, 1) == 1, byte != UInt8(ascii: "\n") else { break }
        bytes.append(byte)
      }
      return String(decoding: bytes, as: UTF8.self)
    }

    /// What nobody has read goes where it would have gone.
    func end() {
      dup2(before, 2)
      close(ends[1])
      var byte: UInt8 = 0
      while unsafe read(ends[0], &byte, 1) == 1 { unsafe write(2, &byte, 1) }
    }
  }

  private final class Kept: @unchecked Sendable {
    // Proof: the tasks of one world, one after the other, and whoever goes on after it.
    var device: NetworkDevice?
    var queue: NetworkQueue?
    /// To the end of the process: a device that goes after its world is told, too.
    var devices: [NetworkDevice] = []
    static let all = Kept()
  }

  @Test func `a trap outside of a world says nothing, and signals are as they were`() async throws {
    let result = try await #require(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let before = Program.flags
      try await Simulation(seed: 7).run { _ in }
      guard before == Program.flags else { exit(0) }
      abort()
    }
    #expect(Self.lines(result) == [])
  }

  private enum Program {
    static var flags: CInt {
      var action = sigaction()
      unsafe sigaction(SIGSEGV, nil, &action)
      // Without what the C library adds to what it sets (SA_RESTORER).
      return action.sa_flags & ~0x0400_0000
    }

    static func end(by signal: CInt) { if signal == SIGABRT { abort() } }

    static func end() async { await withCheckedContinuation { kept.continuation = $0 } }

    static func depth(_ world: SimulatedWorld, _ depth: Int) -> Int {
      world.choose(below: 2) == 2 ? depth : 1 + Self.depth(world, depth + 1)
    }

    private static let kept = Holder()

    private final class Holder: @unchecked Sendable {
      // Proof: the tasks of one world, one after the other.
      var continuation: CheckedContinuation<Void, Never>?
    }
  }
}
