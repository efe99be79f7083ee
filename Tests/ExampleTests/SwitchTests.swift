import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing

@testable import Switch

/// The example's switch, over devices that do what a test says.
@Suite(.timeLimit(.minutes(2))) struct SwitchTests {
  private static func station(_ number: UInt8) -> MACAddress { MACAddress(2, 0, 0, 0, 1, number) }

  private static func frame(from source: UInt8, to destination: MACAddress) -> [UInt8] {
    let addresses = [destination, station(source)]
    return addresses.flatMap { address in (0..<6).map { address[$0] } } + [0x88, 0xB5]
      + [UInt8](repeating: source, count: 46)
  }

  /// A switch with a port for each of these.
  private struct Wired {
    let drivers: [ScriptedDriver]
    let devices: [NetworkDevice]
    let lan: LearningSwitch
    private let running: Task<Void, any Error>

    init(_ modes: [ScriptedDriver.Mode], capacity: Int = 256) async throws {
      drivers = modes.map { ScriptedDriver(mode: $0, capacity: capacity) }
      let devices = try await NetworkDevice.open(drivers: drivers)
      let lan = LearningSwitch(devices.map { $0.queues[0] })
      (self.devices, self.lan) = (devices, lan)
      running = Task { try await NetworkDevice.run(devices) { _, port in try await lan.serve(port) } }
    }

    /// What each port has been given to send.
    var sent: [UInt64] { devices.map { $0.totalStatistics.packetsSubmitted } }

    func end() async throws {
      running.cancel()
      await #expect(throws: CancellationError.self) { try await running.value }
      #expect(devices[0].pool.free == devices[0].pool.configuration.slots)
      #expect(devices[0].pool.copies == 0)
    }
  }

  @Test func `who is not known is looked for everywhere else, and who is known is sent to alone`() async throws {
    let wired = try await Wired([.hold, .hold, .hold])
    await wired.drivers[0].deliver(Self.frame(from: 1, to: Self.station(2)))
    try await eventually("it is everywhere else") { wired.sent == [0, 1, 1] }
    await wired.drivers[1].deliver(Self.frame(from: 2, to: Self.station(1)))
    try await eventually("it is where the first came from") { wired.sent == [1, 1, 1] }
    await wired.drivers[0].deliver(Self.frame(from: 1, to: Self.station(2)))
    try await eventually("it is where the second came from") { wired.sent == [1, 2, 1] }
    await wired.drivers[2].deliver(Self.frame(from: 3, to: .broadcast))
    try await eventually("a broadcast is everywhere else") { wired.sent == [2, 3, 1] }
    #expect(await wired.drivers[1].heldBytes(at: 2) == Self.frame(from: 3, to: .broadcast))
    #expect(
      await wired.lan.stations.mapValues { $0.port } == [Self.station(1): 0, Self.station(2): 1, Self.station(3): 2])
    try await wired.end()
  }

  @Test func `a frame for a station of the same port goes nowhere, and a source that is a group is nobody`()
    async throws
  {
    let wired = try await Wired([.hold, .hold])
    await wired.drivers[0].deliver(Self.frame(from: 1, to: .broadcast))
    await wired.drivers[0].deliver(Self.frame(from: 2, to: Self.station(1)))
    var group = Self.frame(from: 3, to: .broadcast)
    group[6] |= 1
    await wired.drivers[0].deliver(group)
    await wired.drivers[0].deliver([1, 2, 3])
    await wired.drivers[0].deliver(Self.frame(from: 4, to: .broadcast))
    try await eventually("both broadcasts") { wired.sent[1] == 2 }
    #expect(wired.sent == [0, 2])
    try await wired.end()
  }

  @Test func `a port that never reads costs the others no frame, and the statistics show it`() async throws {
    let total = repetitions(1_000_000)
    // The first sends to the second and to the third by turns; the third keeps what it is given.
    let wired = try await Wired([.hold, .release, .hold], capacity: 64)
    for (port, driver) in wired.drivers.enumerated() {
      await driver.deliver(Self.frame(from: UInt8(port), to: Self.station(UInt8(port))))
    }
    try await eventually("everybody is known") { await wired.lan.stations.count == 3 }
    await wired.drivers[0].releaseAll()
    let before = wired.devices.map { $0.totalStatistics }
    let frames = [Self.frame(from: 0, to: Self.station(1)), Self.frame(from: 0, to: Self.station(2))]
    let burst = (0..<32).map { frames[$0 & 1] }
    var delivered = 0
    while delivered < total {
      // As many as there are receive buffers for; none until the switch has taken some.
      let from = delivered % 32
      delivered += await wired.drivers[0].deliver(contentsOf: Array(burst[from..<min(32, from + total - delivered)]))
    }
    let live = UInt64(total / 2)
    try await eventually("the port that reads has all of its frames") {
      wired.devices[1].totalStatistics.packetsReleased - before[1].packetsReleased == live
    }
    let stuck = wired.devices[2].totalStatistics.since(before[2]).change
    let held = UInt64(await wired.drivers[2].held())
    #expect(held == 64)
    try await eventually("and what the other had no room for is counted") {
      wired.devices[2].totalStatistics.packetsRefused == UInt64(total / 2) - (held - before[2].packetsSubmitted)
    }
    #expect(wired.devices[1].totalStatistics.packetsRefused == 0)
    #expect(stuck.sendersWaiting == 0 && stuck.ringFull == 0)
    #expect("\(wired.devices[2].totalStatistics)".contains("refused"))
    try await wired.end()
  }

  @Test func `silent stations are forgotten`() async throws {
    // By a world's clock: minutes are nothing.
    try await Simulation(seed: 1).run { _ in
      let driver = ScriptedDriver(mode: .hold)
      let other = ScriptedDriver(mode: .hold)
      let devices = try await NetworkDevice.open(drivers: [driver, other])
      let lan = LearningSwitch(devices.map { $0.queues[0] })
      let running = Task { try await NetworkDevice.run(devices) { _, port in try await lan.serve(port) } }
      await driver.deliver(Self.frame(from: 1, to: .broadcast))
      while await lan.stations.isEmpty { await devices[0].queues[0].loop.sleep(for: .milliseconds(1)) }
      await devices[0].queues[0].loop.sleep(for: .seconds(100))
      #expect(await lan.stations.count == 1)
      await devices[0].queues[0].loop.sleep(for: .seconds(300))
      #expect(await lan.stations.isEmpty)
      running.cancel()
      _ = await running.result
    }
  }
}
