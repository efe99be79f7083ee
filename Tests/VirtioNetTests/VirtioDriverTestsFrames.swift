import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing
import Virtio
import VirtioNet

/// Net headers, frames in several buffers, and buffers that somebody else holds (VIRTIO 1.4 §5.1.9).
@Suite(.timeLimit(.minutes(2))) struct VirtioDriverTestsFrames {
  @Test func `Driver rule 20: a transmitted header is all zero, whatever lay there before`() async throws {
    let lying = try await Lying()
    let queue = lying.queue
    let header = VirtioNetHeader(
      flags: .init(rawValue: 0xfe), headerLength: 77, segmentSize: 88, checksumStart: 99, checksumOffset: 11,
      numBuffers: 1)
    await lying.side.perform { pair in _ = pair.deliver(numbered(5), header: header, interrupt: .always) }
    for await packet in queue.packets {
      #expect(packet.array == numbered(5))
      try await queue.submit(packet)
      break
    }
    try await eventually("it is forwarded") { await lying.held() == 1 }
    let sent = await lying.side.perform { $0.transmitted() }
    #expect(sent??.header == VirtioNetHeader())
    #expect(sent??.frame == numbered(5))
    try await lying.closeAndCheck()
  }

  @Test func `Driver rule 21: flags that were not negotiated are ignored, and with them offsets beyond the frame`()
    async throws
  {
    let lying = try await Lying()
    let queue = lying.queue
    let headers: [VirtioNetHeader] = [
      .init(flags: .needsChecksum, checksumStart: 65_535, checksumOffset: 65_535, numBuffers: 1),
      .init(flags: .needsChecksum, checksumStart: 63, checksumOffset: 0, numBuffers: 1),
      .init(flags: [.needsChecksum, .dataValid], checksumStart: 100, numBuffers: 1),
      .init(flags: .receiveSegmentCoalescing, checksumStart: .max, checksumOffset: .max, numBuffers: 1),
      .init(flags: .init(rawValue: 0xf8), numBuffers: 1),
      .init(headerLength: 65_535, numBuffers: 1),
      .init(segmentSize: 65_535, numBuffers: 1),
    ]
    await lying.side.perform { pair in
      for (number, header) in headers.enumerated() {
        _ = pair.deliver(numbered(number), header: header, interrupt: .always)
      }
    }
    var count = 0
    for await packet in queue.packets {
      #expect(packet.array == numbered(count))
      count += 1
      if count == headers.count { break }
    }
    try await lying.closeAndCheck()
  }

  @Test(arguments: [[64], [20, 44], [1, 1, 62]])
  func `Driver rule 21: frames to be cut, which nobody asked for, are dropped, and their buffers serve again`(
    pieces: [Int]
  ) async throws {
    let lying = try await Lying()
    let queue = lying.queue
    let consumer = Task { () -> [UInt8]? in
      for await packet in queue.packets { return packet.array }
      return nil
    }
    var dropped: UInt64 = 0
    for kind in [1, 3, 4, 5, 0x81, 0x80, 0x7f, 2] as [UInt8] {
      let header = VirtioNetHeader(
        flags: .needsChecksum, segmentation: .init(rawValue: kind), segmentSize: kind == 4 ? 0 : 100,
        numBuffers: UInt16(pieces.count))
      // More in total than the ring has buffers.
      for _ in 0..<10 {
        try await eventually("there are buffers") {
          await lying.side.perform { $0.deliver(numbered(1), pieces: pieces, header: header, interrupt: .always) }
            ?? false
        }
        dropped += 1
      }
    }
    try await eventually("all are dropped") { queue.statistics.driver.receiveDrops == dropped }
    try await eventually("a good frame comes through") {
      await lying.side.perform { $0.deliver(numbered(9), interrupt: .always) } ?? false
    }
    #expect(await consumer.value == numbered(9))
    try await lying.closeAndCheck()
  }

  @Test(arguments: [2, 3, 7, 16])
  func `Driver rule 19: a frame in several buffers is one packet, shown with and without a copy`(
    buffers: Int
  ) async throws {
    let lying = try await Lying()
    let queue = lying.queue
    let frame = numbered(3, count: 1400)
    let piece = 1400 / buffers
    let pieces = (0..<buffers).map { $0 == buffers - 1 ? 1400 - piece * (buffers - 1) : piece }
    await lying.side.perform { pair in _ = pair.deliver(frame, pieces: pieces, interrupt: .always) }
    for await packet in queue.packets {
      #expect(packet.segmentCount == buffers)
      var segments: [Int] = []
      packet.withSegments { segments.append($0.byteCount) }
      #expect(segments == pieces)
      #expect(lying.pool.linearCopies == 0)
      #expect(packet.array == frame)
      #expect(packet.array == frame)
      #expect(lying.pool.linearCopies == 1)
      var changed = packet
      changed.withMutableBytes { $0.storeBytes(of: 0xee, toByteOffset: 1399, as: UInt8.self) }
      #expect(changed.segmentCount == 1)
      #expect(changed.array == frame[..<1399] + [0xee])
      #expect(packet.array == frame)
      break
    }
    try await lying.closeAndCheck()
  }

  @Test
  func `Driver rule 19: frames of one and of several buffers follow one another in one burst, across polls and wraps`()
    async throws
  {
    let lying = try await Lying()
    let queue = lying.queue
    let consumer = Task { () -> Int in
      var count = 0
      for await packet in queue.packets {
        #expect(packet.array == numbered(count, count: 300))
        count += 1
        if count == 2000 { break }
      }
      return count
    }
    var number = 0
    while number < 2000 {
      let first = number
      number =
        await lying.side.perform { pair in
          var next = first
          while next < 2000 {
            let pieces = [[300], [100, 200], [1, 298, 1], [300], [75, 75, 75, 75]][next % 5]
            guard pair.deliver(numbered(next, count: 300), pieces: pieces) else { break }
            next += 1
          }
          return next
        } ?? 2000
    }
    #expect(await consumer.value == 2000)
    try await lying.closeAndCheck()
  }

  @Test(arguments: [true, false]) func `Driver rules 17, 20: a frame in several buffers is forwarded byte for byte`(
    indirect: Bool
  ) async throws {
    var configuration = LyingDevice.Configuration()
    if !indirect { configuration.features.remove(.indirectDesc) }
    let lying = try await Lying(configuration)
    let queue = lying.queue
    for (number, pieces) in [[700, 700], [1, 1399], [350, 350, 350, 350]].enumerated() {
      let frame = numbered(number, count: 1400)
      await lying.side.perform { pair in _ = pair.deliver(frame, pieces: pieces, interrupt: .always) }
      for await packet in queue.packets {
        try await queue.submit(packet)
        break
      }
      try await eventually("it is forwarded") { await lying.held() == 1 }
      await lying.side.perform { pair in
        let sent = pair.transmitted()
        #expect(sent?.header == VirtioNetHeader())
        #expect(sent?.frame == frame)
        let chain = pair.transmittedChain()
        #expect(chain.map { Int($0.length) } == [12] + pieces)
        #expect(chain.allSatisfy { !$0.isWritable && !$0.isIndirect })
        let head = pair.transmit.ring.descriptor(pair.transmit.held[0])
        #expect(head.isIndirect == indirect)
        if indirect { #expect(head.flags == 4 && head.length == 16 * UInt32(chain.count)) }
        pair.release(interrupt: .always)
      }
    }
    try await lying.closeAndCheck()
  }

  @Test(arguments: [true, false])
  func `Driver rules 17, 20: a packet that is in flight already has its next header elsewhere, its headroom untouched`(
    indirect: Bool
  ) async throws {
    var configuration = LyingDevice.Configuration()
    if !indirect { configuration.features.remove(.indirectDesc) }
    let lying = try await Lying(configuration)
    let queue = lying.queue
    let pattern = [UInt8](repeating: 0xa5, count: 12)
    let packet = try Packet(copying: numbered(4), in: lying.pool)
    try await queue.submit(packet)
    try await eventually("it is published") { await lying.held() == 1 }
    // The first that is shared.
    let pool = AddressPlan.spacing..<AddressPlan.spacing + UInt64(lying.pool.length)
    await lying.side.perform { pair in
      // The program holds it, too, but nobody has written anything before its frame.
      #expect(pair.transmittedChain().map { $0.length } == [76])
      #expect(pair.transmitted()?.header == VirtioNetHeader())
      // The device may be reading there.
      pair.transmit.ring.write(pattern, at: pair.transmittedChain()[0].address)
    }
    try await queue.submit(packet)
    try await eventually("it is in flight twice") { await lying.held() == 2 }
    await lying.side.perform { pair in
      let (first, second) = (pair.transmittedChain(at: 0), pair.transmittedChain(at: 1))
      #expect(first.map { $0.length } == [76])
      #expect(second.map { $0.length } == [12, 64])
      guard let front = first.first, second.count == 2 else { return }
      #expect(!pool.contains(second[0].address))
      #expect(second[1].address == front.address + 12)
      #expect(pair.transmit.ring.bytes(LyingRing.Descriptor(address: front.address, length: 12)) == pattern)
      #expect(pair.transmitted(at: 1)?.header == VirtioNetHeader())
      #expect(pair.transmitted(at: 1)?.frame == numbered(4))
      let head = pair.transmit.ring.descriptor(pair.transmit.held[1])
      #expect(head.isIndirect == indirect)
      #expect(head.hasNext == !indirect)
      pair.releaseAll(interrupt: .always)
    }
    try await eventually("both are released") { queue.statistics.packetsReleased == 2 }
    // Now nobody else holds it: one descriptor, the header before the frame.
    try await queue.submit(consume packet)
    try await eventually("it is published again") { await lying.held() == 1 }
    await lying.side.perform { pair in
      #expect(pair.transmittedChain().map { $0.length } == [76])
      #expect(pair.transmitted()?.header == VirtioNetHeader())
      pair.release(interrupt: .always)
    }
    try await lying.closeAndCheck()
  }

  @Test func `more frames of several descriptors than the ring takes wait in order and lose nothing`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.indirectDesc)
    configuration.features.insert(.mtu)
    configuration.space = LyingDevice.Space.bytes(mtu: 4000)
    let lying = try await Lying(configuration, pool: PacketPool(.init(slots: 2048)), queueSize: 256)
    let queue = lying.queue
    let rest = [UInt8](repeating: 0, count: 2400)
    let packets = try (0..<600).map { try Packet(copying: numbered($0) + rest, in: lying.pool) }
    // Each lies in two buffers and is held here too, and so takes three descriptors: 85 fill the ring, though 256 are let in.
    for packet in packets[..<256] { try await queue.submit(packet) }
    try await eventually("the ring is full") { await lying.held() == 85 }
    let outcomes = packets[256...].map { _ in Outcome() }
    for (number, packet) in packets[256...].enumerated() {
      Task { await outcomes[number].record { try await queue.send(packet) } }
      try await eventually("sender \(number) waits") { queue.statistics.ringFull == UInt64(number + 1) }
    }
    await turn(queue, times: 100)
    #expect(await lying.held() == 85)
    var seen: [[UInt8]] = []
    while seen.count < 600 {
      let frames = await lying.side.perform { pair -> [[UInt8]] in
        let frames = pair.transmit.held.indices.compactMap { pair.transmitted(at: $0)?.frame }
        pair.releaseAll()
        return frames
      }
      seen += frames ?? []
      await turn(queue, times: 2)
    }
    #expect(seen == packets.indices.map { numbered($0) + rest })
    try await eventually("every send ends") { outcomes.allSatisfy { $0.finished == 1 } }
    #expect(outcomes.allSatisfy { $0.errors.isEmpty })
    withExtendedLifetime(packets) {}
    try await lying.device.close()
  }

  @Test(arguments: [true, false])
  func `a frame in more buffers than a small ring can send fails alone, and the queue goes on`(indirect: Bool)
    async throws
  {
    var configuration = LyingDevice.Configuration()
    if !indirect { configuration.features.remove(.indirectDesc) }
    let lying = try await Lying(configuration, queueSize: 2)
    let queue = lying.queue
    await lying.side.perform { pair in _ = pair.deliver(numbered(1), pieces: [32, 32], interrupt: .always) }
    for await packet in queue.packets {
      await #expect { try await queue.send(packet) } throws: { ($0 as? NetworkDeviceError)?.code == .frameTooLong }
      break
    }
    let outcome = Outcome()
    Task { await outcome.record { try await queue.send(Packet(copying: numbered(2), in: lying.pool)) } }
    try await eventually("the next is published") { await lying.held() == 1 }
    await lying.side.perform { _ = $0.release() }
    try await eventually("and released") { outcome.finished == 1 }
    #expect(outcome.errors.isEmpty)
    try await lying.closeAndCheck()
  }
}
