import CNetdevSystem
import Foundation
import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// Invariant 1: buffers are reference-counted values; invariant 11: packets outlive their device.
@Suite(.timeLimit(.minutes(3))) struct PacketTests {
  @Test func `a packet is a value: changing a copy leaves the other as it was`() throws {
    let pool = try PacketPool(.init(slots: 8))
    let first = try Packet(copying: numbered(1), in: pool)
    var second = first
    second.withMutableBytes { $0.storeBytes(of: 0xff, toByteOffset: 0, as: UInt8.self) }
    #expect(first.array == numbered(1))
    #expect(second.array[0] == 0xff)
    #expect(pool.copies == 1)
  }

  @Test func `a packet with one holder is changed in place`() throws {
    let pool = try PacketPool(.init(slots: 8))
    var packet = try Packet(copying: numbered(1), in: pool)
    packet.withMutableBytes { $0.storeBytes(of: 0xff, toByteOffset: 0, as: UInt8.self) }
    var span = packet.mutableBytes
    span.storeBytes(of: 0xee, toByteOffset: 1, as: UInt8.self)
    #expect(packet.array[0...1] == [0xff, 0xee])
    #expect(pool.copies == 0)
  }

  /// The only holder of a packet, which lets it go on the thread that says so.
  private final class Holder: Sendable {
    private let packet: Mutex<Packet?>
    init(_ number: Int, in pool: PacketPool) throws {
      packet = Mutex(try Packet(copying: numbered(number), in: pool))
    }
    func letGo() -> Int { packet.withLock { $0.take()?.count ?? 0 } }
  }

  @Test func `the last reference returns the buffer, on whatever thread it goes`() async throws {
    let pool = try PacketPool(.init(slots: 64))
    for _ in 0..<1000 {
      let holders = try (0..<8).map { try Holder($0, in: pool) }
      #expect(pool.free == 56)
      await withTaskGroup(of: Int.self) { group in
        for holder in holders { group.addTask { holder.letGo() } }
        #expect(await group.reduce(0, +) == 8 * 64)
      }
      // The holders are still there, and empty.
      #expect(pool.free == 64)
      withExtendedLifetime(holders) {}
    }
    let onLoop = try Holder(1, in: pool)
    let loop = try LoopExecutor(name: "foreign")
    #expect(pool.free == 63)
    _ = await LoopScope(loop).run { _ in onLoop.letGo() }
    #expect(pool.free == 64)
    let onThread = try Holder(2, in: pool)
    #expect(pool.free == 63)
    await withCheckedContinuation { continuation in
      Thread.detachNewThread {
        _ = onThread.letGo()
        continuation.resume()
      }
    }
    #expect(pool.free == 64)
  }

  @Test func `a packet made from an empty pool lives on the heap and moves to a buffer when it is sent`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let pool = device.pool
    var kept: [Packet] = []
    while true {
      let packet = try Packet(copying: numbered(kept.count), in: pool)
      kept.append(packet)
      if !packet.isInPool { break }
    }
    let onHeap = kept[kept.count - 1]
    kept.removeFirst(4)
    try await device.queues[0].submit(onHeap)
    try await eventually("it is published") { await driver.held() == 1 }
    #expect(await driver.heldBytes(at: 0) == onHeap.array)
    #expect(device.queues[0].statistics.copiedToSend == 1)
    kept = []
    try await device.close()
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `a packet of a pool that the device does not know is copied and counted`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let other = try PacketPool(.init(slots: 4))
    let packet = try Packet(copying: numbered(7), in: other)
    try await device.queues[0].submit(packet)
    try await eventually("it is published") { await driver.held() == 1 }
    #expect(await driver.heldBytes(at: 0) == numbered(7))
    #expect(device.queues[0].statistics.copiedToSend == 1)
    try await device.close()
  }

  @Test func `a packet changed in flight changes a copy: the device sees what was sent`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let pool = device.pool
    await turn(queue, times: 10)
    let idle = pool.free
    do {
      var packet = try Packet(copying: numbered(7), in: pool)
      try await queue.submit(packet)
      try await eventually("it is published") { await driver.held() == 1 }
      #expect(pool.free == idle - 1)
      packet.withMutableBytes { $0.storeBytes(of: 0xff, toByteOffset: 0, as: UInt8.self) }
      #expect(packet.array[0] == 0xff)
      #expect(await driver.heldBytes(at: 0) == numbered(7))
      // Two buffers: the driver's, which the device reads, and the copy.
      #expect(pool.copies == 1)
      #expect(pool.free == idle - 2)
      await driver.releaseAll()
      try await eventually("the driver's goes with its release") { pool.free == idle - 1 }
      #expect(packet.array == [0xff] + numbered(7)[1...])
    }
    try await eventually("and the copy with the packet") { pool.free == idle }
    try await device.close()
    #expect(pool.free == pool.configuration.slots)
  }

  @Test func `a buffer sent twice and through two devices is free after the last release only`() async throws {
    let pool = try PacketPool(.init(slots: 2048))
    var configuration = NetworkDevice.Configuration()
    configuration.pool = pool
    let drivers = [ScriptedDriver(mode: .hold), ScriptedDriver(mode: .hold)]
    let devices = [
      try await NetworkDevice.open(driver: drivers[0], configuration: configuration),
      try await NetworkDevice.open(driver: drivers[1], configuration: configuration),
    ]
    do {
      let packet = try Packet(copying: numbered(7), in: pool)
      for device in devices {
        try await device.queues[0].submit(packet)
        try await device.queues[0].submit(packet)
      }
    }
    for driver in drivers { try await eventually("both are published") { await driver.held() == 2 } }
    for driver in drivers { #expect(await driver.heldBytes(at: 1) == numbered(7)) }
    await drivers[0].releaseAll()
    await drivers[1].release(at: 0)
    #expect(await drivers[1].heldBytes(at: 0) == numbered(7))
    await drivers[1].releaseAll()
    for device in devices { try await device.close() }
    #expect(pool.free == 2048)
    #expect(pool.copies == 0)
  }

  @Test func `packets outlive their device and their pool`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    var kept: [Packet] = []
    do {
      let device = try await NetworkDevice.open(driver: driver)
      for number in 0..<10 {
        await driver.deliver(numbered(number))
      }
      for await packet in device.queues[0].packets {
        kept.append(packet)
        if kept.count == 10 { break }
      }
      try await device.close()
    }
    for (number, packet) in kept.enumerated() { #expect(packet.array == numbered(number)) }
  }

  /// Keeps the first 64 packets of a queue while frames go round until a million have passed, then lets them go.
  private func keepWhileOthersPass(_ device: NetworkDevice) async throws {
    let pool = device.pool
    let total = repetitions(1_000_000)
    try await device.run { queue in
      var kept: [Packet] = []
      var seen = 0
      for number in 0..<80 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
      for await var packet in queue.packets {
        seen += 1
        if kept.count < 64 {
          kept.append(packet)
          continue
        }
        if seen == total { break }
        packet.withMutableBytes { $0.storeBytes(of: 0xff, toByteOffset: 63, as: UInt8.self) }
        try await queue.submit(packet)
      }
      #expect(seen == total)
      for (number, packet) in kept.enumerated() { #expect(packet.array == numbered(number)) }
    }
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    #expect(pool.copies == 0)
  }

  @Test func `packets kept while a million others pass keep their bytes`() async throws {
    try await keepWhileOthersPass(NetworkDevice.open(driver: ScriptedDriver(mode: .loopback)))
  }

  @Test(arguments: ["loopback:?lossless=1", "loopback:?lossless=1&placement=own"])
  func `packets of a virtio device, kept while a million others pass, keep their bytes`(_ url: String) async throws {
    try await keepWhileOthersPass(NetworkDevice.open(url))
  }

  @Test func `sizes are checked where they come in`() async throws {
    let pool = try PacketPool(.init(slots: 8))
    #expect(throws: NetworkDeviceError.self) { try Packet(count: -1, in: pool) }
    #expect(throws: NetworkDeviceError.self) { try Packet(count: 65_536, in: pool) }
    #expect(try Packet(count: 0, in: pool).count == 0)
    #expect(try Packet(count: 65_535, in: pool).count == 65_535)
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let long = try Packet(count: 1515, in: device.pool)
    await #expect { try await device.queues[0].submit(long) } throws: { error in
      (error as? NetworkDeviceError)?.code == .frameTooLong
    }
    try await device.queues[0].submit(Packet(count: 1514, in: device.pool))
    try await device.close()
  }

  @Test func `a frame grows, shrinks, loses and gains a header, and keeps its bytes`() throws {
    let pool = try PacketPool(.init(slots: 8))
    var packet = try Packet(copying: numbered(3), in: pool)
    try packet.resize(to: 100)
    #expect(packet.array == numbered(3) + [UInt8](repeating: 0, count: 36))
    packet.truncate(to: 64)
    packet.removeFirst(14)
    #expect(packet.array == Array(numbered(3)[14...]))
    try packet.prepend(count: 14)
    #expect(packet.array == [UInt8](repeating: 0, count: 14) + numbered(3)[14...])
    try packet.prepend(count: 1000)
    #expect(packet.array.suffix(50) == numbered(3).suffix(50))
    #expect(packet.count == 1064)
    try packet.resize(to: 4000)
    #expect(packet.array[1014...1063] == numbered(3)[14...63])
  }

  @Test func `pools that make no sense are refused with a reason`() {
    for configuration in [
      PacketPool.Configuration(slots: 0), .init(slots: 1 << 20), .init(slots: 1, slotSize: 100),
      .init(slots: 1, slotSize: 131_072), .init(slots: 1, headroom: 3), .init(slots: 1, reserve: 2),
    ] {
      #expect { _ = try PacketPool(configuration) } throws: { error in
        (error as? NetworkDeviceError)?.code == .invalidConfiguration
      }
    }
  }

  /// What the address sanitizer's silence over all other tests is worth.
  @Test(.enabled(if: netdev_poisoning, "only where the address sanitizer watches: make test-address"))
  func `a buffer used after its release is reported by the address sanitizer`() async {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      try readReleasedBuffer()
    }
    let report = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(report.contains("use-after-poison"))
  }
}

/// What must never be done: keeps a buffer's address and reads there after the buffer has gone back to its pool.
private func readReleasedBuffer() throws {
  let pool = try PacketPool(.init(slots: 8))
  var packet: Packet? = try Packet(copying: numbered(1), in: pool)
  let address = packet?.withBytes { bytes in unsafe bytes.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) } }
  packet = nil
  print(unsafe UnsafePointer<UInt8>(bitPattern: address ?? 0)?.pointee ?? 0)
}
