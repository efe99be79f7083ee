import Netdev
import NetdevDevices
import NetdevTesting
import TestSupport
import Testing

/// Packets that a program makes: what is in them, and where their buffers come from and go.
@Suite(.timeLimit(.minutes(2))) struct MadePacketTests {
  /// Fills every buffer of a pool with `byte`, and lets them go.
  private static func fill(_ pool: PacketPool, with byte: UInt8) throws {
    let length = pool.configuration.slotSize - pool.configuration.headroom
    let all = try (0..<pool.configuration.slots).map { _ in
      try Packet(copying: [UInt8](repeating: byte, count: length), in: pool)
    }
    #expect(all.allSatisfy { $0.isInPool })
  }

  private static func check(_ packet: borrowing Packet, _ bytes: [UInt8]) {
    #expect(packet.array == bytes)
    #expect(packet.count == bytes.count)
  }

  @Test func `what a closure leaves unwritten is no part of the packet, and stale bytes do not come back`() throws {
    let pool = try PacketPool(.init(slots: 4, hugePages: false))
    try Self.fill(pool, with: 0xee)
    var packet = try Packet(count: 64, in: pool) { bytes in
      for byte: UInt8 in [0x44, 0x33, 0x22, 0x11] { bytes.append(byte) }
      bytes.append(repeating: 7, count: 6)
    }
    Self.check(packet, [0x44, 0x33, 0x22, 0x11, 7, 7, 7, 7, 7, 7])
    #expect(packet.isInPool)
    // Grown again it has zeros there, and not what the buffer held.
    try packet.resize(to: 64)
    Self.check(packet, [0x44, 0x33, 0x22, 0x11, 7, 7, 7, 7, 7, 7] + [UInt8](repeating: 0, count: 54))
    let none = try Packet(count: 64, in: pool) { _ in }
    Self.check(none, [])
    let taken = try Packet(count: 8, in: pool) { bytes in
      bytes.append(repeating: 1, count: 8)
      bytes.removeLast(3)
    }
    Self.check(taken, [1, 1, 1, 1, 1])
  }

  @Test func `a frame that a closure wrote in part leaves with these bytes alone`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 64, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    try await device.run { queue in
      for _ in 0..<100 {
        let stale = try Packet(copying: [UInt8](repeating: 0xee, count: 1000), in: queue.pool)
        _ = consume stale
        let packet = try Packet(count: 1000, in: queue.pool) { bytes in
          bytes.append(repeating: 5, count: 60)
        }
        try await queue.submit(consume packet)
        try await eventually("it is with the device") { await driver.held() == 1 }
        let bytes = await driver.heldBytes(at: 0)
        #expect(bytes == [UInt8](repeating: 5, count: 60))
        await driver.releaseAll()
        try await eventually("released") { queue.inFlight == 0 }
      }
    }
    #expect(device.pool.free == 64)
  }

  @Test func `a closure that throws makes no packet, and its buffer is free`() throws {
    let pool = try PacketPool(.init(slots: 2, hugePages: false))
    let refusal = NetworkDeviceError(.unsupported, "a test")
    for _ in 0..<8 {
      let error = #expect(throws: NetworkDeviceError.self) {
        try Packet(count: 64, in: pool) { (bytes: inout OutputSpan<UInt8>) throws(NetworkDeviceError) in
          bytes.append(repeating: 1, count: 9)
          throw refusal
        }
      }
      #expect(error?.code == .unsupported)
      #expect(pool.free == 2)
    }
    #expect(pool.heapPackets == 0)
  }

  @Test(arguments: [-1, 65_536]) func `a length that no frame has is refused`(count: Int) throws {
    let pool = try PacketPool(.init(slots: 2, hugePages: false))
    #expect(throws: NetworkDeviceError.self) { try Packet(count: count, in: pool) }
    #expect(throws: NetworkDeviceError.self) { try Packet(count: count, in: pool) { _ in } }
    if count > 0 {
      #expect(throws: NetworkDeviceError.self) { try Packet(copying: [UInt8](repeating: 0, count: count), in: pool) }
    }
    #expect(pool.free == 2)
  }

  @Test func `a frame that is longer than a buffer lies on the heap when a closure writes it`() throws {
    let pool = try PacketPool(.init(slots: 8, hugePages: false))
    let packet = try Packet(count: 4000, in: pool) { $0.append(repeating: 3, count: 4000) }
    Self.check(packet, [UInt8](repeating: 3, count: 4000))
    #expect(!packet.isInPool)
  }

  @Test func `on a loop packets come from what is at hand there and leave the pool its reserve`() async throws {
    var configuration = NetworkDevice.Configuration()
    let pool = try PacketPool(.init(slots: 64, reserve: 24, hugePages: false))
    configuration.pool = pool
    let device = try await NetworkDevice.open(
      driver: ScriptedDriver(mode: .hold, capacity: 8), configuration: configuration)
    try await device.run { queue in
      // Whatever reception has taken of the reserve, a program gets none of it.
      let free = pool.free
      let (inPool, heap) = try Self.hold(80, of: pool)
      #expect(inPool <= 40)
      #expect(inPool >= min(40, free - 24))
      #expect(heap == 80 - inPool)
      #expect(pool.heapPackets == heap)
      // They are all back, and serve again.
      #expect(pool.free == free)
      #expect(try Self.hold(80, of: pool).0 == inPool)
    }
    #expect(pool.free == 64)
  }

  @Test func `what comes home on a loop is the reserve's before it is a program's`() async throws {
    let driver = ScriptedDriver(mode: .hold, capacity: 8)
    var configuration = NetworkDevice.Configuration()
    let pool = try PacketPool(.init(slots: 48, reserve: 16, hugePages: false))
    configuration.pool = pool
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    try await device.run { queue in
      // All that a program gets.
      var held: [Packet] = []
      while let packet = try Self.make(in: pool) { held.append(packet) }
      // Frames that are kept: the ring takes from the reserve.
      var kept: [Packet] = []
      var packets = queue.packets.makeAsyncIterator()
      for number in 0..<8 {
        await driver.deliver(numbered(number))
        if let packet = await packets.next() { kept.append(packet) }
      }
      try await eventually("the ring has its buffers from the reserve") { pool.available < 16 }
      let lacking = 16 - pool.available
      #expect(held.count > lacking)
      // Nothing is awaited from here on: what comes home stays at hand.
      held.removeLast(lacking)
      #expect(try Self.make(in: pool) == nil)
      held.removeLast()
      #expect(try Self.make(in: pool) != nil)
      withExtendedLifetime(kept) {}
    }
    #expect(pool.free == 48)
  }

  /// A packet in a buffer of the pool; nil when there is none for it.
  private static func make(in pool: PacketPool) throws -> Packet? {
    let packet = try Packet(copying: numbered(1), in: pool)
    return packet.isInPool ? packet : nil
  }

  /// How many of so many packets that are held at the same time lie in the pool, and how many do not.
  private static func hold(_ count: Int, of pool: PacketPool) throws -> (Int, Int) {
    var all: [Packet] = []
    for number in 0..<count { all.append(try Packet(copying: numbered(number), in: pool)) }
    for number in 0..<count { check(all[number], numbered(number)) }
    let inPool = all.count { $0.isInPool }
    return (inPool, count - inPool)
  }

  @Test func `the object that serves again shows no trace of the packet before`() async throws {
    let device = try await NetworkDevice.open("loopback:")
    try await device.run { queue in
      for round in 0..<300 {
        let length = 60 + round % 40
        let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: length)
        let packet = try Packet(copying: bytes, in: queue.pool)
        let kept = packet
        try await queue.send(consume packet)
        // Somebody holds it still: what is made now lies elsewhere.
        var next = try Packet(count: 60, in: queue.pool)
        next.withMutableBytes { $0.storeBytes(of: 0xff, toByteOffset: 0, as: UInt8.self) }
        #expect(kept.array == bytes)
        #expect(next.array == [0xff] + [UInt8](repeating: 0, count: 59))
        try await queue.send(consume next)
        if round.isMultiple(of: 32) { while queue.receiveBurstIfAny() != nil {} }
      }
    }
    #expect(device.pool.free == device.pool.configuration.slots)
    #expect(device.pool.copies == 0)
  }
}
