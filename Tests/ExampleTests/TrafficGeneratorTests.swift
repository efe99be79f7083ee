import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import Testing

@testable import TrafficGenerator

/// The example's traffic, in worlds whose clock takes no time.
@Suite(.timeLimit(.minutes(2))) struct TrafficGeneratorTests {
  @Test func `it sends at the rate that was asked for, through all queues, and every frame comes back with its time`()
    async throws
  {
    try await Simulation(seed: 3).run { world in
      let device = try await world.open("loopback:?queues=2&lossless=1")
      let traffic = Traffic(size: 64, duration: .seconds(2), rate: 1000)
      let (sent, times) = try await exchange(traffic, from: device, to: device)
      #expect((1900...2000).contains(sent), "\(sent)")
      #expect(times.total == UInt64(sent))
      #expect(device.totalStatistics.bytesSubmitted == UInt64(sent * 64))
      try await device.close()
    }
  }

  @Test func `without a rate it sends as much as the device takes, and loses nothing`() async throws {
    let devices = try await NetworkDevice.open(["loopback:?lossless=1"])
    let traffic = Traffic(size: 1514, duration: .milliseconds(200), rate: 0)
    let (sent, times) = try await exchange(traffic, from: devices[0], to: devices[0])
    #expect(sent > 100 && times.total == UInt64(sent))
    #expect(times.longest > .zero)
    for device in devices { try await device.close() }
    #expect(devices[0].pool.free == devices[0].pool.configuration.slots)
  }

  @Test func `frames of others are not counted`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let receiving = Task { await device.queues[0].run { await Traffic.receive(from: $0) } }
    for length in [0, 14, 16, 24, 31, 64] { await driver.deliver([UInt8](repeating: 0x4E, count: length)) }
    while device.totalStatistics.packetsReceived < 6 { await Task.yield() }
    try await device.close()
    #expect(await receiving.value.total == 0)
  }
}
