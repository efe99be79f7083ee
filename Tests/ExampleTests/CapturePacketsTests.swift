import Foundation
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing

@testable import CapturePackets

/// The example's capture, over a device that does what a test says.
@Suite(.timeLimit(.minutes(2))) struct CapturePacketsTests {
  @Test(arguments: [0, 3, 10, 25]) func `the last packets are in the file, the oldest first`(_ total: Int) async throws
  {
    let path = FileManager.default.temporaryDirectory.appending(path: "capture-\(UUID().uuidString).pcap").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let driver = ScriptedDriver(mode: .hold)
    var configuration = NetworkDevice.Configuration()
    configuration.keptPackets = 10
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let capturing = Task { try await device.run { try await capture($0, keep: 10, file: path) } }
    for number in 0..<total {
      await driver.deliver(
        [UInt8](repeating: UInt8(number), count: 12) + [0x08, 0x06] + [UInt8](repeating: 0, count: 46))
    }
    try await eventually("all are taken") { device.totalStatistics.packetsReceived == UInt64(total) }
    capturing.cancel()
    await #expect(throws: CancellationError.self) { try await capturing.value }
    let bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
    let kept = max(0, total - 10)..<total
    #expect(bytes.count == 24 + kept.count * (16 + 60))
    let first: [UInt8] = kept.indices.map { index in bytes[24 + 16 + (index - kept.lowerBound) * 76] }
    let expected: [UInt8] = kept.map { UInt8($0) }
    #expect(first == expected)
    #expect(device.pool.copies == 0)
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}
