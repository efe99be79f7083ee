import LibeventConcurrency
import Logging
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing

/// Pools that are made for packets that a program keeps, and pools that are short of buffers.
@Suite(.timeLimit(.minutes(1))) struct KeptPacketsTests {
  private static func information(rings: Int) -> NetworkDeviceInformation {
    NetworkDeviceInformation(
      name: "test", hardwareAddress: nil, mtu: 1500, queuePairs: 1, queueSize: rings, headroom: 12,
      receiveBufferSize: 1514)
  }

  @Test func `a device with kept packets goes on when all of them are kept`() async throws {
    let driver = ScriptedDriver(mode: .loopback, capacity: 16)
    var configuration = NetworkDevice.Configuration()
    configuration.keptPackets = 1000
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let plain = try await NetworkDevice.open(driver: ScriptedDriver(mode: .hold, capacity: 16))
    #expect(device.pool.configuration.slots == plain.pool.configuration.slots + 1000)
    var kept: [Packet] = []
    for number in 0..<1000 {
      try await device.queues[0].submit(Packet(copying: numbered(number), in: device.pool))
      for await packet in device.queues[0].packets {
        kept.append(packet)
        break
      }
    }
    #expect(kept.enumerated().allSatisfy { $0.element.number == $0.offset })
    #expect(device.pool.heapPackets == 0 && device.totalStatistics.copiedToSend == 0)
    try await device.close()
    try await plain.close()
  }

  @Test func `what does not fit says what to write instead`() throws {
    let informations = [Self.information(rings: 256)]
    #expect(PacketPool.Configuration.fitting(informations).advice(for: informations) == nil)
    let few = try #require(PacketPool.Configuration(slots: 16).advice(for: informations))
    #expect(few.contains("16 buffers are too few for receive rings of 256"))
    #expect(few.contains("write PacketPool.Configuration(slots: 1280, reserve: 256)"))
    let bare = try #require(PacketPool.Configuration(slots: 4096).advice(for: informations))
    #expect(bare.contains("reserve of 0") && bare.contains("slots: 1280, reserve: 256"))
    let kept = try #require(
      PacketPool.Configuration(slots: 1280, reserve: 256).advice(for: informations, keptPackets: 2000))
    #expect(kept.contains("and 2000 kept packets") && kept.contains("slots: 3280"))
    #expect(
      PacketPool.Configuration.fitting(informations, keptPackets: 2000).advice(for: informations, keptPackets: 2000)
        == nil)
  }

  @Test(arguments: [-1, 1_048_575, Int.max]) func `more packets than a pool can have buffers are refused`(_ kept: Int)
    async throws
  {
    var configuration = NetworkDevice.Configuration()
    configuration.keptPackets = kept
    let driver = ScriptedDriver(mode: .hold)
    let error = await #expect(throws: NetworkDeviceError.self) {
      try await NetworkDevice.open(driver: driver, configuration: configuration).close()
    }
    #expect(error?.code == .invalidConfiguration && error?.offered.contains("\(kept) kept packets") == true)
    #expect(driver.shutDownCount == 1)
  }

  @Test func `opening with a pool that is short says so in the log`() async throws {
    let log = RecordedLog()
    var configuration = NetworkDevice.Configuration()
    configuration.logger = log.logger
    configuration.pool = try PacketPool(.init(slots: 16, hugePages: false))
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .hold), configuration: configuration)
    try await device.close()
    #expect(log.lines(.notice).contains { $0.contains("16 buffers are too few for receive rings of 256") })
  }

  @Test func `packets on the heap are counted, and the first that is sent is a warning`() async throws {
    let log = RecordedLog()
    var configuration = NetworkDevice.Configuration()
    configuration.logger = log.logger
    configuration.pool = try PacketPool(.init(slots: 8, hugePages: false))
    let driver = ScriptedDriver(mode: .release, capacity: 4)
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let pool = device.pool
    var kept = try (0..<4).map { try Packet(copying: numbered($0), in: pool) }
    let onHeap = try (4..<6).map { try Packet(copying: numbered($0), in: pool) }
    // One that is longer than a buffer lies on the heap for that, and is not counted.
    let long = try Packet(count: 4000, in: pool)
    #expect(pool.heapPackets == 2 && !onHeap[0].isInPool && !long.isInPool)
    kept = []
    try await device.queues[0].run { queue in for packet in onHeap { try await queue.send(packet) } }
    #expect(log.lines(.warning).filter { $0.contains("a packet lay on the heap") }.count == 1)
    try await device.close()
    withExtendedLifetime(kept) {}
  }

  @Test func `copies of packets that somebody else holds are counted, and one line says so when they are many`()
    async throws
  {
    let log = RecordedLog()
    var configuration = NetworkDevice.Configuration()
    configuration.logger = log.logger
    configuration.logger.logLevel = .debug
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let forwarding = Task {
      try await device.run { queue in
        for await packet in queue.packets {
          // Still held here, as in a program that has forgotten to give it away.
          var changed = packet
          changed.withMutableBytes { $0.storeBytes(of: 1, toByteOffset: 0, as: UInt8.self) }
          try await queue.submit(changed)
          withExtendedLifetime(packet) {}
        }
      }
    }
    var sent = 0
    while sent < 3000 { sent += await driver.deliver(contentsOf: (0..<min(32, 3000 - sent)).map { numbered($0) }) }
    try await eventually("all are sent") { device.totalStatistics.packetsReleased == 3000 }
    forwarding.cancel()
    _ = await forwarding.result
    #expect(device.totalStatistics.copiedToChange == 3000 && device.pool.copies == 3000)
    #expect(log.lines(.debug).filter { $0.contains("copied to be changed") }.count == 1)
    #expect("\(device.totalStatistics)".contains("copied to change 3000"))
  }
}

extension RecordedLog {
  fileprivate func lines(_ level: Logger.Level) -> [String] { all.filter { $0.level == level }.map { $0.message } }
}
