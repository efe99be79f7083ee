import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import TestSupport
import Testing
import VirtioNet

/// Every frame that goes in or does not come out is in exactly one counter: the numbers of both sides add up.
@Suite(.timeLimit(.minutes(4))) struct AccountTests {
  /// What a program did.
  private struct Account {
    var accepted: UInt64 = 0
    var fetched: UInt64 = 0
  }

  /// Frames in bursts and one by one, from the loop and from elsewhere, some of them too long, for a consumer that takes some.
  private static func trade(_ queue: NetworkQueue, frames: Int, fetching: Int) async throws -> Account {
    var account = Account()
    for number in 0..<frames / 4 {
      try await queue.submit(Packet(copying: numbered(number), in: queue.pool))
      account.accepted += 1
      await #expect(throws: NetworkDeviceError.self) {
        try await queue.submit(Packet(count: 2000, in: queue.pool))
      }
    }
    account.accepted += try await queue.run { queue in
      var accepted: UInt64 = 0
      while accepted < frames / 2 {
        let burst = try queue.makeBurst(count: 32, length: 60)
        accepted += UInt64(burst.count)
        try await queue.submit(burst)
      }
      for number in 0..<frames / 4 {
        try await queue.submit(Packet(copying: numbered(number), in: queue.pool))
        accepted += 1
      }
      return accepted
    }
    // Elsewhere than on the loop, and it stops before it has used what it was given ahead.
    var left = fetching
    if left > 0 {
      for await _ in queue.packets {
        left -= 1
        if left == 0 { break }
      }
    }
    account.fetched = UInt64(fetching)
    return account
  }

  @Test(arguments: [
    "loopback:", "loopback:?placement=own", "loopback:?queue_size=16", "loopback:?placement=own&queue_size=16",
    "loopback:?lossless=1", "loopback:?mrg_rxbuf=0&event_idx=0",
  ])
  func `the numbers of a device of this process and those of its queue add up`(_ url: String) async throws {
    for fetching in [0, 1, 100, 150] {
      let device = try await NetworkDevice.open(url)
      let queue = device.queues[0]
      // Without loss the device holds frames back that nobody fetches.
      let isLossless = url.contains("lossless")
      let account = try await Self.trade(
        queue, frames: isLossless ? 200 : 2000, fetching: url.contains("16") ? min(fetching, 10) : fetching)
      try await device.close()
      let counts = queue.statistics
      guard let drops = device.deviceDrops.first, device.deviceDrops.count == 1 else {
        Issue.record("\(device.deviceDrops.count) pairs tell of drops")
        return
      }
      // What was accepted has been released or has failed; what was released came back, or the device dropped it; what came
      // back was taken from the device or dropped by the driver; and what was taken was fetched, or dropped at the end.
      #expect(counts.packetsReleased + counts.packetsFailed == account.accepted, "\(url) \(fetching)")
      let carried = counts.packetsReceived + counts.driver.receiveDrops
      #expect(
        carried + drops.totalTransmitted + drops.totalReceived == counts.packetsReleased, "\(url) \(fetching): \(drops)"
      )
      // The device's own side has counted the same: what it carried on it has delivered, or had no buffer for.
      let peer = try #require(device.peerStatistics.first)
      #expect(peer.drops == drops && peer.receivedFrames == carried, "\(url) \(fetching): \(peer)")
      #expect(peer.transmittedFrames + drops.totalTransmitted == counts.packetsReleased, "\(url) \(fetching): \(peer)")
      #expect(peer.receivedBytes >= counts.bytesReceived)
      #expect(counts.droppedAtEnd + account.fetched == counts.packetsReceived, "\(url) \(fetching)")
      if !isLossless {
        // Far more than the ring holds: the device had none left, and both sides say so.
        #expect(drops.totalTransmitted + drops.totalReceived > 0)
      }
      #expect(device.pool.free == device.pool.configuration.slots)
    }
  }

  @Test(arguments: [ScriptedDriver.Mode.hold, .release, .loopback], [0, 1, 100])
  func `the numbers of a scripted device add up`(_ mode: ScriptedDriver.Mode, _ fetching: Int) async throws {
    let driver = ScriptedDriver(mode: mode)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    var delivered: UInt64 = 0
    var tooLong: UInt64 = 0
    if mode != .loopback {
      for number in 0..<200 {
        if await driver.deliver(numbered(number)) { delivered += 1 }
        if await driver.deliver(numbered(number, count: 1600)) { tooLong += 1 }
      }
    }
    let account = try await Self.trade(queue, frames: 160, fetching: fetching)
    try await device.close()
    let counts = queue.statistics
    #expect(counts.packetsReleased + counts.packetsFailed == account.accepted)
    #expect(counts.driver.receiveDropsLength == tooLong)
    #expect(counts.packetsReceived == (mode == .loopback ? counts.packetsReleased : delivered))
    #expect(counts.droppedAtEnd + account.fetched == counts.packetsReceived)
    #expect(device.deviceDrops == [])
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a receive ring that nobody empties runs empty of buffers, and that is counted`() async throws {
    let lying = try await Lying()
    let queue = lying.queue
    #expect(queue.statistics.starved == 0)
    for round in 1...3 {
      // The device uses up all that it has, and would drop what comes now.
      await lying.side.perform { pair in
        var number = 0
        while pair.deliver(numbered(number), interrupt: .always) { number += 1 }
      }
      var seen = 0
      for await _ in queue.packets {
        seen += 1
        if seen == 16 { break }
      }
      await turn(queue, times: 3)
      #expect(queue.statistics.driver.receiveRingEmpty == UInt64(round))
      #expect(queue.statistics.starved == UInt64(round))
    }
    try await lying.closeAndCheck()
  }
}
