import InProcess
import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// A frame is never an end: one limit for what is received and what is sent, longer frames are dropped below the program or
/// refused to their one sender, and whatever is within the limit goes both ways, in however many buffers.
@Suite(.timeLimit(.minutes(3))) struct FrameLimitTests {
  /// A frame with so many VLAN tags.
  static func tagged(_ tags: Int, count: Int, number: Int = 1) -> [UInt8] {
    var bytes = numbered(number, count: count)
    for tag in 0..<tags {
      bytes[12 + 4 * tag] = tag == 0 && tags == 2 ? 0x88 : 0x81
      bytes[13 + 4 * tag] = tag == 0 && tags == 2 ? 0xa8 : 0x00
    }
    bytes[12 + 4 * tags] = 0x08
    bytes[13 + 4 * tags] = 0x00
    return bytes
  }

  static func lying(mtu: UInt16, queueSize: Int = 16, mergeable: Bool = true) async throws -> Lying {
    var configuration = LyingDevice.Configuration()
    configuration.features.insert(.mtu)
    if !mergeable { configuration.features.remove(.mrgRxbuf) }
    configuration.space = LyingDevice.Space.bytes(mtu: mtu)
    let pool = mergeable ? nil : try PacketPool(.init(slots: 512, slotSize: 10_240, hugePages: false))
    return try await Lying(configuration, pool: pool, queueSize: queueSize)
  }

  @Test(arguments: [false, true])
  func `what is longer than the limit is dropped and counted, tags not counted, and what comes through goes back`(
    mergeable: Bool
  ) async throws {
    let lying = try await Self.lying(mtu: 1500, mergeable: mergeable)
    #expect(lying.device.information.maximumFrameLength == 1514)
    let queue = lying.queue
    let (good, bad) = (
      [Self.tagged(0, count: 1514), Self.tagged(1, count: 1518), Self.tagged(2, count: 1522)],
      [
        Self.tagged(0, count: 1515), Self.tagged(1, count: 1519), Self.tagged(2, count: 1523),
        Self.tagged(0, count: 1522),
      ]
    )
    var dropped: UInt64 = 0
    for frame in bad + good {
      // One that is too long for the program, then one that is not: the drop took no buffer for good.
      #expect(await lying.side.perform { $0.deliver(bad[0], interrupt: .always) } == true)
      #expect(await lying.side.perform { $0.deliver(frame, interrupt: .always) } == true)
      dropped += bad.contains(frame) ? 2 : 1
      if bad.contains(frame) {
        #expect(await lying.side.perform { $0.deliver(good[0], interrupt: .always) } == true)
      }
      let expected = bad.contains(frame) ? good[0] : frame
      for await var packet in queue.packets {
        #expect(packet.array == expected)
        #expect(queue.canSend(packet))
        packet.withMutableBytes { $0.storeBytes(of: 0xee, toByteOffset: 0, as: UInt8.self) }
        let outcome = Outcome()
        let kept = packet
        Task { await outcome.record { try await queue.send(kept) } }
        try await eventually("it is sent back") { await lying.held() == 1 }
        #expect(await lying.side.perform { $0.transmitted()?.frame } == [0xee] + expected[1...])
        await lying.side.perform { _ = $0.release(interrupt: .always) }
        try await eventually("and released") { outcome.finished == 1 }
        #expect(outcome.errors.isEmpty)
        break
      }
    }
    try await eventually("each drop is counted") { queue.statistics.driver.receiveDropsLength == dropped }
    try await lying.closeAndCheck()
  }

  @Test func `a long frame of several buffers is changed in place and sent back, packet by packet and by the burst`()
    async throws
  {
    let lying = try await Self.lying(mtu: 9000, queueSize: 64)
    let queue = lying.queue
    for length in [1921, 4000, 9014] {
      for isBurst in [false, true] {
        let frame = numbered(length, count: length)
        var pieces = [Int](repeating: 1900, count: length / 1900)
        pieces.append(length - pieces.reduce(0, +))
        let parts = pieces
        await lying.side.perform { _ = $0.deliver(frame, pieces: parts, interrupt: .always) }
        if isBurst {
          guard var burst = await queue.receiveBurst() else { break }
          burst.forEach { $0.storeBytes(of: 0xee, toByteOffset: $0.byteCount - 1, as: UInt8.self) }
          try await queue.submit(burst)
        } else {
          for await var packet in queue.packets {
            #expect(packet.segmentCount == parts.count)
            packet.withMutableBytes { $0.storeBytes(of: 0xee, toByteOffset: $0.byteCount - 1, as: UInt8.self) }
            try await queue.submit(packet)
            break
          }
        }
        try await eventually("it is sent back") { await lying.held() == 1 }
        #expect(await lying.side.perform { $0.transmitted()?.frame } == frame.dropLast() + [0xee])
        await lying.side.perform { _ = $0.release(interrupt: .always) }
      }
    }
    try await lying.closeAndCheck()
  }

  /// Ways to have a long frame.
  enum Origin: CaseIterable { case written, copied, foreign, heap, prepended, resized, shared, burst }

  private static func make(_ origin: Origin, _ bytes: [UInt8], in pool: PacketPool) throws -> Packet {
    func write(_ packet: inout Packet) {
      packet.withMutableBytes {
        for (position, byte) in bytes.enumerated() { $0.storeBytes(of: byte, toByteOffset: position, as: UInt8.self) }
      }
    }
    switch origin {
    case .written, .burst:
      var packet = try Packet(count: bytes.count, in: pool)
      write(&packet)
      return packet
    case .copied: return try Packet(copying: bytes, in: pool)
    case .foreign: return try Packet(copying: bytes, in: PacketPool(.init(slots: 64, slotSize: 512, hugePages: false)))
    case .heap: return try Packet(copying: bytes, in: PacketPool(.init(slots: 1, hugePages: false)))
    case .prepended:
      var packet = try Packet(copying: Array(bytes[1500...]), in: pool)
      try packet.prepend(count: 1500)
      write(&packet)
      return packet
    case .resized:
      var packet = try Packet(copying: Array(bytes[..<100]), in: pool)
      try packet.resize(to: bytes.count)
      write(&packet)
      return packet
    case .shared:
      let first = try Packet(copying: [UInt8](repeating: 0, count: bytes.count), in: pool)
      var packet = first
      write(&packet)
      return packet
    }
  }

  @Test(arguments: Origin.allCases, SendPath.ofPacket)
  func `a program's own frame of any length up to the limit is sent, wherever it comes from`(
    origin: Origin, path: SendPath
  ) async throws {
    let driver = ScriptedDriver(mode: .hold, mtu: 9000, receiveBufferSize: 1514)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let pool = device.pool
    #expect(pool.configuration.slotSize == 2048)
    for length in [1920, 1921, 4000, 9014] {
      let bytes = numbered(length, count: length)
      let outcome = Outcome()
      Task {
        await outcome.record {
          if origin == .burst {
            try await queue.run { queue in
              var burst = try queue.makeBurst(count: 1, length: length)
              burst.forEach { frame in
                #expect(frame.byteCount == length)
                for (position, byte) in bytes.enumerated() {
                  frame.storeBytes(of: byte, toByteOffset: position, as: UInt8.self)
                }
              }
              try await queue.send(burst)
            }
            return
          }
          let packet = try Self.make(origin, bytes, in: pool)
          try await path.send(packet, to: queue)
        }
      }
      try await eventually("\(length) bytes are with the device") { await driver.held() == 1 }
      #expect(await driver.heldBytes(at: 0) == bytes)
      await driver.releaseAll()
      try await eventually("released") { outcome.finished == 1 }
      #expect(outcome.errors.isEmpty)
    }
    try await device.close()
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  @Test(arguments: SendPath.ofPacket)
  func `one frame that is too long is refused to its one sender, and the queue goes on`(path: SendPath) async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for frame in [Self.tagged(0, count: 1515), Self.tagged(1, count: 1519), Self.tagged(2, count: 1523)] {
      let failed = queue.statistics.packetsFailed
      let packet = try Packet(copying: frame, in: device.pool)
      #expect(!queue.canSend(packet))
      let outcome = Outcome()
      await outcome.record { try await path.send(packet, to: queue) }
      #expect(outcome.errors.map { $0.code } == (path.isPipeline ? [] : [.frameTooLong]))
      #expect(queue.statistics.packetsFailed - failed == (path.isPipeline ? 1 : 0))
      // What one call leaves behind is not the next one's.
      for next in SendPath.ofPacket where !next.isPipeline {
        let packet = try Packet(copying: frame, in: device.pool)
        await outcome.record { try await next.send(packet, to: queue) }
        #expect(outcome.errors.last?.code == .frameTooLong, "\(next) behind \(path)")
      }
      try await queue.send(Packet(copying: Self.tagged(2, count: 1522), in: device.pool))
      try await queue.send(Packet(copying: Self.tagged(1, count: 1518), in: device.pool))
    }
    try await device.close()
  }

  @Test(arguments: [false, true])
  func `of a burst for a device with a lower limit the frames that fit are sent, and the one that does not is told`(
    isAwaited: Bool
  ) async throws {
    let (input, output) = (
      ScriptedDriver(mode: .hold, mtu: 9000, receiveBufferSize: 1514),
      ScriptedDriver(mode: isAwaited ? .release : .hold)
    )
    let (from, to) = try await ForwardTests.open(input, output)
    let (source, sink) = (from.queues[0], to.queues[0])
    for length in [100, 1514, 1515, 1700, 9000, 64] { #expect(await input.deliver(numbered(1, count: length))) }
    let outcome = Outcome()
    await outcome.record {
      try await sink.run { sink in
        guard let burst = await source.receiveBurst() else { return }
        #expect(burst.count == 6)
        if isAwaited { try await sink.send(burst) } else { try await sink.submit(burst) }
      }
    }
    #expect(outcome.errors.map { $0.code } == [.frameTooLong])
    try await eventually("the others are out") { sink.statistics.packetsSubmitted == 3 }
    try await from.close()
    try await to.close()
    try await eventually("every buffer is back") { from.pool.free == from.pool.configuration.slots }
  }

  @Test(arguments: [InProcessTransport.Placement.inline, .ownLoop()])
  func `through a device with an MTU of 9000 frames of every length come back byte for byte, changed on their way`(
    placement: InProcessTransport.Placement
  ) async throws {
    var configuration = VirtioNetDevice.Configuration()
    configuration.mtu = 9000
    let side = VirtioNetDevice(backend: LoopbackBackend(lossless: true), configuration: configuration)
    let device = try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: InProcessTransport(device: side, placement: placement)))
    let lengths = [60, 1514, 1920, 1921, 2048, 3968, 3969, 4000, 8999, 9014]
    let queue = device.queues[0]
    let echo = Task {
      // Each frame goes twice round: what was received is changed and sent back.
      try await queue.run { queue in
        var seen: [Int: Int] = [:]
        var done = 0
        for await var packet in queue.packets {
          let length = packet.count
          let round = seen[length, default: 0]
          #expect(packet.array == [UInt8](repeating: UInt8(round), count: length))
          seen[length] = round + 1
          if round == 3 {
            done += 1
            if done == lengths.count { return }
            continue
          }
          packet.withMutableBytes {
            for position in 0..<length { $0.storeBytes(of: UInt8(round + 1), toByteOffset: position, as: UInt8.self) }
          }
          try await queue.submit(packet)
        }
      }
    }
    for length in lengths {
      try await queue.send(Packet(copying: [UInt8](repeating: 0, count: length), in: device.pool))
    }
    try await echo.value
    try await device.close()
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  @Test func `the limit is that of the MTU, four bytes more for each of up to two tags, for any number`() {
    for mtu in [Int.min, -1, 0] { #expect(FrameLimit(mtu: mtu).untagged == 14) }
    #expect(FrameLimit(mtu: .max).longest == .max)
    #expect(FrameLimit(untagged: -5).untagged == 0)
    let last = Self.tagged(2, count: 60)
    let admitsLast = unsafe FrameLimit(untagged: .max - 4).admits(length: .max, startingWith: last.span.bytes)
    #expect(admitsLast)
    let limit = FrameLimit(mtu: 1500)
    for tags in 0...3 {
      let frame = Self.tagged(tags, count: 60)
      let allowed = 1514 + 4 * min(tags, 2)
      let start = unsafe frame.span.bytes
      let (counted, fits) = (FrameLimit.tags(of: start), limit.admits(length: allowed, startingWith: start))
      let exceeds = [allowed + 1, .max].map { limit.admits(length: $0, startingWith: start) }
      #expect(counted == min(tags, 2) && fits && exceeds == [false, false])
    }
    // Too short to tell.
    for (count, tags) in [(0, 0), (13, 0), (14, 1), (17, 1), (18, 2)] {
      let frame = Array(Self.tagged(2, count: 60)[..<count])
      let counted = unsafe FrameLimit.tags(of: frame.span.bytes)
      #expect(counted == tags)
    }
  }
}
