import Netdev
import NetdevDevices
import NetdevTesting
import PacketFormats
import TestSupport
import Testing

/// Bursts of a program's own frames.
@Suite(.timeLimit(.minutes(2))) struct MakeBurstTests {
  private static func device(
    _ driver: ScriptedDriver, slots: Int, reserve: Int = 0
  ) async throws -> NetworkDevice {
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: slots, reserve: reserve, hugePages: false))
    return try await NetworkDevice.open(driver: driver, configuration: configuration)
  }

  @Test func `frames are sent as they were written, in order, and every buffer comes back`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 256)
    let device = try await Self.device(driver, slots: 1024)
    try await device.run { queue in
      var number: UInt8 = 0
      for count in [1, 7, 64] {
        var burst = try queue.makeBurst(count: count, length: 60 + count)
        #expect(burst.count == count)
        burst.forEach { frame in
          #expect(frame.byteCount == 60 + count)
          for position in 0..<frame.byteCount { frame.storeBytes(of: number, toByteOffset: position, as: UInt8.self) }
          number += 1
        }
        try await queue.submit(burst)
      }
      // More than a burst is a burst; one that is forgotten is dropped.
      #expect(try queue.makeBurst(count: 1000, length: 60).count == 64)
      try await eventually("all are with the device") { await driver.held() == 72 }
      for position in 0..<72 {
        let bytes = await driver.heldBytes(at: position)
        #expect(bytes == [UInt8](repeating: UInt8(position), count: position == 0 ? 61 : position < 8 ? 67 : 124))
      }
      await driver.releaseAll()
      try await eventually("released") { queue.statistics.packetsReleased == 72 }
    }
    #expect(device.pool.free == 1024)
  }

  @Test func `a burst that fails half way gives each of its buffers back once`() async throws {
    let (input, output) = (ScriptedDriver(mode: .hold, capacity: 16), ScriptedDriver(mode: .hold, capacity: 4))
    let (from, to) = (try await Self.device(input, slots: 64), try await Self.device(output, slots: 64))
    let (source, sink) = (from.queues[0], to.queues[0])
    let sending = Task {
      try await source.run { queue in
        // Another pool's buffers: the frames are taken out one by one, and copied.
        try await sink.submit(try queue.makeBurst(count: 8, length: 60))
      }
    }
    try await eventually("the ring is full, and the fifth frame waits") { sink.statistics.ringFull == 1 }
    sending.cancel()
    let error = await #expect(throws: NetworkDeviceError.self) { try await sending.value }
    #expect(error?.code == .cancelled)
    #expect(await output.held() == 4)
    // A buffer that is free twice would be lent twice.
    var packets: [Packet] = []
    while packets.last?.isInPool != false {
      packets.append(try Packet(copying: numbered(packets.count), in: from.pool))
    }
    #expect(packets.map { $0.number } == Array(0..<packets.count))
    packets = []
    try await from.close()
    try await to.close()
    #expect(from.pool.free == 64)
    #expect(to.pool.free == 64)
  }

  @Test func `what the pool reserves for reception stays there`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 16)
    let device = try await Self.device(driver, slots: 64, reserve: 20)
    try await device.run { queue in
      // Sixteen are posted.
      let burst = try queue.makeBurst(count: 64, length: 60)
      #expect(burst.count == 28)
      let error = #expect(throws: NetworkDeviceError.self) { _ = try queue.makeBurst(count: 1, length: 60) }
      #expect(error?.code == .outOfMemory)
      _ = consume burst
      #expect(try queue.makeBurst(count: 64, length: 60).count == 28)
    }
    #expect(device.pool.free == 64)
  }

  @Test func `buffers that the device has released are found before there are none`() async throws {
    let driver = ScriptedDriver(mode: .release, capacity: 16)
    let device = try await Self.device(driver, slots: 32)
    try await device.run { queue in
      for _ in 0..<1000 { try await queue.submit(try queue.makeBurst(count: 16, length: 60)) }
      #expect(queue.statistics.packetsSubmitted == 16_000)
    }
    #expect(device.pool.free == 32)
  }

  @Test func `what does not fit a buffer or the device, and a queue that has ended, are typed errors`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await Self.device(driver, slots: 1024)
    let queue = device.queues[0]
    for length in [-1, 1523, 4000] {
      await #expect(throws: NetworkDeviceError.self) { _ = try await queue.makeBurst(count: 1, length: length) }
    }
    #expect(try await queue.makeBurst(count: 1, length: 1514).count == 1)
    try await device.close()
    let error = await #expect(throws: NetworkDeviceError.self) { _ = try await queue.makeBurst(count: 1, length: 60) }
    #expect(error?.code == .closed)
  }

  @Test func `no frames are none`() async throws {
    let device = try await Self.device(ScriptedDriver(mode: .hold), slots: 1024)
    try await device.run { queue in
      for count in [0, -5] {
        let burst = try queue.makeBurst(count: count, length: 60)
        #expect(burst.count == 0)
        try await queue.submit(burst)
      }
      #expect(queue.statistics.packetsSubmitted == 0)
    }
    #expect(device.pool.free == 1024)
  }

  @Test func `frames are as long as frames with tags may be, and without them fail`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await Self.device(driver, slots: 1024)
    try await device.run { queue in
      for length in [1515, 1518, 1522] {
        var burst = try queue.makeBurst(count: 2, length: length)
        try burst.forEach { frame in
          for position in 0..<frame.byteCount { frame.storeBytes(of: 0, toByteOffset: position, as: UInt8.self) }
          try frame.storeUInt16(EtherType.serviceTag.rawValue, at: 12)
          try frame.storeUInt16(EtherType.customerTag.rawValue, at: 16)
        }
        try await queue.submit(burst)
      }
      try await eventually("they are with the device") { await driver.held() == 6 }
      #expect(await driver.heldBytes(at: 5).count == 1522)
      await driver.releaseAll()
      var plain = try queue.makeBurst(count: 1, length: 1518)
      plain.forEach { frame in
        for position in 0..<frame.byteCount { frame.storeBytes(of: 0, toByteOffset: position, as: UInt8.self) }
      }
      try await queue.submit(plain)
      try await eventually("it has failed") { queue.statistics.packetsFailed == 1 }
      try await eventually("the others are released") { queue.statistics.packetsReleased == 6 }
    }
    #expect(device.pool.free == 1024)
  }

  @Test(arguments: [true, false]) func `one that is waited for fails in the words of a packet alone`(_ isScripted: Bool)
    async throws
  {
    let device =
      isScripted
      ? try await NetworkDevice.open(driver: ScriptedDriver(mode: .release))
      : try await NetworkDevice.open("loopback:?lossless=1")
    try await device.run { queue in
      for length in [1515, 1518] {
        var burst = try queue.makeBurst(count: 2, length: length)
        burst.forEach { frame in
          for position in 0..<frame.byteCount { frame.storeBytes(of: 0, toByteOffset: position, as: UInt8.self) }
        }
        var error: NetworkDeviceError?
        do { try await queue.send(burst) } catch let thrown as NetworkDeviceError { error = thrown }
        let long = try Packet(count: length, in: queue.pool)
        var alone: NetworkDeviceError?
        do { try await queue.send(long) } catch let thrown as NetworkDeviceError { alone = thrown }
        #expect(error == alone && error?.code == .frameTooLong && error?.operation == "send")
      }
      #expect(queue.statistics.packetsFailed == 4 && queue.statistics.packetsSubmitted == 0)
    }
  }
}
