import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// A burst's frames, one by one.
@Suite(.timeLimit(.minutes(1))) struct BurstFramesTests {
  /// A device that has received these frames, and a burst of them.
  private static func received(
    _ frames: [[UInt8]], receiveBufferSize: Int? = nil,
    _ body: (consuming PacketBurst, NetworkDevice) async throws -> Void
  ) async throws {
    let driver = ScriptedDriver(mode: .hold, mtu: 4000, receiveBufferSize: receiveBufferSize)
    let device = try await NetworkDevice.open(driver: driver)
    #expect(await driver.deliver(contentsOf: frames) == frames.count)
    guard let burst = await device.queues[0].receiveBurst() else {
      throw NetworkDeviceError(.system, "there is no burst")
    }
    #expect(burst.count == frames.count)
    try await body(burst, device)
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  private static func first(_ burst: borrowing PacketBurst) -> [UInt8] {
    var bytes: [UInt8] = []
    burst.forEachFrame { bytes.append($0.unsafeLoadUnchecked(0)) }
    return bytes
  }

  @Test func `frames are taken out from the first on`() async throws {
    try await Self.received((0..<5).map { numbered($0) }) { (burst, _) in
      var burst = burst
      #expect(burst.popFirst()?.number == 0)
      #expect(burst.popFirst()?.number == 1)
      #expect(burst.popLast()?.number == 4)
      #expect(Self.first(burst) == [2, 3])
      #expect(burst.popFirst()?.number == 2 && burst.popFirst()?.number == 3)
      #expect(burst.popFirst() == nil && burst.count == 0)
    }
  }

  /// The parts of a burst by the first byte of each frame, over five, whose last part goes nowhere.
  private static func split(_ burst: consuming PacketBurst?) -> [[UInt8]] {
    var parts: [[UInt8]] = []
    burst.take()?.split { frame in
      let number = Int(frame.unsafeLoadUnchecked(0))
      return number % 5 == 4 ? nil : number % 5
    } into: { destination, part in
      #expect(destination == parts.count)
      parts.append(Self.first(part))
    }
    return parts
  }

  @Test(arguments: [true, false]) func `a split has every frame once, in order, and drops what goes nowhere`(
    _ isOnLoop: Bool
  ) async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    #expect(await driver.deliver(contentsOf: (0..<64).map { numbered($0) }) == 64)
    let parts: [[UInt8]]
    if isOnLoop {
      parts = await queue.run { queue in Self.split(await queue.receiveBurst()) }
    } else {
      parts = Self.split(await queue.receiveBurst())
    }
    #expect(parts == (0..<4).map { rest in (0..<64).filter { $0 % 5 == rest }.map { UInt8($0) } })
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a split may end early, and loses no buffer`() async throws {
    struct Enough: Error {}
    try await Self.received((0..<9).map { numbered($0) }) { (burst, _) in
      var seen = 0
      do {
        try burst.split(by: { Int($0.unsafeLoadUnchecked(0)) % 3 }) { _, part in
          seen += part.count
          if seen > 3 { throw Enough() }
        }
        Issue.record("it went on")
      } catch {}
      #expect(seen == 6)
    }
  }

  @Test func `a burst and its parts say when they were received, by the loop's clock`() async throws {
    let hand = HandTurnedLoop()
    let driver = ScriptedDriver(mode: .hold)
    let configuration = hand.configuration
    let device = try await hand.run { try await NetworkDevice.open(driver: driver, configuration: configuration) }
    let queue = device.queues[0]
    hand.advance(by: .seconds(7))
    let sent = Task { await driver.deliver(contentsOf: (0..<8).map { numbered($0) }) }
    let times = try await hand.run {
      await queue.run { queue in
        var times: [LoopClock.Instant?] = []
        guard let burst = await queue.receiveBurst() else { return times }
        burst.split(by: { Int($0.unsafeLoadUnchecked(0)) % 2 }) { _, part in times.append(part.receivedAt) }
        return times
      }
    }
    try await hand.run { _ = await sent.value }
    #expect(times == Array(repeating: LoopClock.Instant(nanoseconds: 7_000_000_000), count: 2))
    let made = try await hand.run { try await queue.run { try $0.makeBurst(count: 2, length: 60).receivedAt } }
    #expect(made == nil)
    try await hand.run { try await device.close() }
  }

  @Test func `segments are shown without a copy, frames in one piece with one`() async throws {
    let long = numbered(7, count: 3500)
    try await Self.received([numbered(1), long], receiveBufferSize: 1000) { (burst, device) in
      var pieces: [(frame: Int, offset: Int, bytes: [UInt8])] = []
      burst.forEachSegment { frame, bytes, offset in
        pieces.append((frame, offset, (0..<bytes.byteCount).map { bytes.unsafeLoadUnchecked($0) }))
      }
      #expect(pieces.count > 2 && pieces[0].bytes == numbered(1))
      var whole: [UInt8] = []
      for piece in pieces where piece.frame == 1 {
        #expect(piece.offset == whole.count)
        whole += piece.bytes
      }
      #expect(whole == long)
      #expect(device.pool.linearCopies == 0)
      var counts: [Int] = []
      burst.forEachFrame { counts.append($0.byteCount) }
      #expect(counts == [64, 3500] && device.pool.linearCopies == 1)
    }
  }
}
