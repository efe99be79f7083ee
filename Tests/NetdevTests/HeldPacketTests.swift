import Netdev
import NetdevDevices
@testable import NetdevTesting
import TestSupport
import Testing

/// Packets that a program holds while they are sent: whose header lies before the frame, and who changes what.
@Suite(.timeLimit(.minutes(1))) struct HeldPacketTests {
  /// Of the frames that the device holds, in order, whether the driver may write a header before each.
  private static func plain(_ driver: ScriptedDriver, queue: Int = 0) async -> [Bool] {
    await driver.on(queue) { part in part.held.map { $0.isPlain } } ?? []
  }

  private static func submit(
    _ packet: Packet, to device: NetworkDevice, queue: Int = 0, expecting plain: [Bool], of driver: ScriptedDriver
  ) async throws {
    try await device.queues[queue].run { queue in try await queue.submit(packet) }
    try await eventually("it is with the device") { await driver.held(queue: queue) == plain.count }
    #expect(await Self.plain(driver, queue: queue) == plain)
  }

  @Test func `one flight of a held packet at a time has its header before the frame`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let packet = try Packet(copying: numbered(1), in: device.pool)
    try await Self.submit(packet, to: device, expecting: [true], of: driver)
    try await Self.submit(packet, to: device, expecting: [true, false], of: driver)
    try await Self.submit(packet, to: device, expecting: [true, false, false], of: driver)
    // One that had it elsewhere says nothing about who has it there.
    await driver.release(at: 1)
    try await eventually("it is back") { device.totalStatistics.packetsReleased == 1 }
    try await Self.submit(packet, to: device, expecting: [true, false, false], of: driver)
    await driver.release(at: 0)
    try await eventually("it is back") { device.totalStatistics.packetsReleased == 2 }
    try await Self.submit(packet, to: device, expecting: [false, false, true], of: driver)
    await driver.releaseAll()
    try await eventually("all are back") { device.totalStatistics.packetsReleased == 5 }
    try await Self.submit(packet, to: device, expecting: [true], of: driver)
    #expect(packet.number == 1)
    try await device.close()
  }

  @Test func `so it is through several queues`() async throws {
    let driver = ScriptedDriver(mode: .hold, queuePairs: 2, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let packet = try Packet(copying: numbered(2), in: device.pool)
    try await Self.submit(packet, to: device, queue: 1, expecting: [true], of: driver)
    try await Self.submit(packet, to: device, queue: 0, expecting: [false], of: driver)
    await driver.releaseAll(queue: 1)
    try await eventually("it is back") { device.totalStatistics.packetsReleased == 1 }
    try await Self.submit(packet, to: device, queue: 0, expecting: [false, true], of: driver)
    try await device.close()
  }

  @Test func `a held packet that is changed under way is changed in a copy`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: driver)
    let pool = device.pool
    var packet = try Packet(copying: numbered(3), in: pool)
    let kept = packet
    try await Self.submit(packet, to: device, expecting: [true], of: driver)
    packet.withMutableBytes { $0.storeBytes(of: 9, toByteOffset: 0, as: UInt8.self) }
    #expect(pool.copies == 1)
    // Before the frame is the header: what is put in front lies in a copy, too.
    var longer = kept
    try longer.prepend(count: 4)
    #expect(pool.copies == 2)
    #expect(await driver.heldBytes(at: 0) == numbered(3))
    #expect(kept.number == 3)
    await driver.releaseAll()
    try await eventually("it is back") { device.totalStatistics.packetsReleased == 1 }
    // Nobody else holds this one by now.
    var alone = consume kept
    try alone.prepend(count: 4)
    #expect(pool.copies == 2)
    try await device.close()
  }

  @Test func `a flight that failed leaves the place before the frame`() async throws {
    let pool = try PacketPool(.init(slots: 256, hugePages: false))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let first = ScriptedDriver(mode: .hold, capacity: 8)
    let device = try await NetworkDevice.open(driver: first, configuration: configuration)
    let packet = try Packet(copying: numbered(4), in: pool)
    try await Self.submit(packet, to: device, expecting: [true], of: first)
    try await device.close()
    #expect(device.totalStatistics.packetsFailed == 1)
    let second = ScriptedDriver(mode: .hold, capacity: 8)
    let other = try await NetworkDevice.open(driver: second, configuration: configuration)
    try await Self.submit(packet, to: other, expecting: [true], of: second)
    try await other.close()
  }

  @Test func `packets that two queues send at the same time arrive as they are`() async throws {
    let device = try await NetworkDevice.open("loopback:?queues=2")
    let packets = try (0..<8).map { try Packet(copying: numbered($0), in: device.pool) }
    try await withThrowingTaskGroup(of: Int.self) { group in
      for queue in device.queues {
        group.addTask {
          try await queue.run { queue in
            var wrong = 0
            for round in 0..<400 {
              for packet in packets { try await queue.submit(packet) }
              var left = packets.count
              for await packet in queue.packets {
                let number = packets.count - left
                if packet.array != numbered(number) { wrong += 1 }
                left -= 1
                if left == 0 { break }
              }
              if round % 50 == 0 { await Task.yield() }
            }
            return wrong
          }
        }
      }
      for try await wrong in group { #expect(wrong == 0) }
    }
    #expect(device.totalStatistics.driver.receiveDrops == 0)
    try await device.close()
  }
}
