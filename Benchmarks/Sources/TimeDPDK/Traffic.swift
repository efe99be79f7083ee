import BenchmarkSupport
import NetdevDevices

/// Our driver's part of a case: what a user's program would look like, until the queue is closed.
struct Traffic: Sendable {
  let measured: Case
  let way: Contender.Way
  /// Frames that go round in the macswap loop.
  let window: Int

  /// Packets of a batch: what testpmd moves at a time.
  static let batch = 32

  func run(on queue: isolated NetworkQueue) async throws {
    switch (measured.scenario, way) {
    case (.macswap, let way):
      for _ in 0..<window { try await queue.submit(makePacket(in: queue.pool)) }
      switch way {
      case .burst: try await swapBursts(queue)
      case .await: try await swapPackets(queue)
      case .pipeline: try await swapInPipeline(queue)
      case .sendBatch: try await swapAndSendBursts(queue)
      case .send: try await swapAndSend(queue)
      }
    case (.transmit, .burst): try await makeBursts(queue)
    case (.transmit, .await): try await makeAndSubmit(queue)
    case (.transmit, .pipeline): try await queue.forward(from: Source(traffic: self, pool: queue.pool))
    case (.transmit, .sendBatch): try await makeAndSendBatches(queue)
    case (.transmit, .send): try await makeAndSend(queue)
    case (.receive, .burst): while let burst = await queue.receiveBurst() { _ = consume burst }
    case (.receive, _): for await packet in queue.packets { _ = consume packet }
    }
  }
}

// MARK: - The loop

extension Traffic {
  private func swapBursts(_ queue: isolated NetworkQueue) async throws {
    while var burst = await queue.receiveBurst() {
      burst.forEach { swapAddresses(&$0) }
      try await queue.submit(burst)
    }
  }

  private func swapPackets(_ queue: isolated NetworkQueue) async throws {
    for await var packet in queue.packets {
      packet.withMutableBytes { swapAddresses(&$0) }
      try await queue.submit(consume packet)
    }
  }

  private func swapInPipeline(_ queue: isolated NetworkQueue) async throws {
    let swapped = queue.packets.compactMap { (packet: consuming Packet) -> Packet? in
      packet.withMutableBytes { swapAddresses(&$0) }
      return packet
    }
    try await queue.forward(from: swapped)
  }

  private func swapAndSendBursts(_ queue: isolated NetworkQueue) async throws {
    while var burst = await queue.receiveBurst() {
      burst.forEach { swapAddresses(&$0) }
      try await queue.send(burst)
    }
  }

  private func swapAndSend(_ queue: isolated NetworkQueue) async throws {
    for await var packet in queue.packets {
      packet.withMutableBytes { swapAddresses(&$0) }
      try await queue.send(consume packet)
    }
  }
}

// MARK: - Making frames

extension Traffic {
  private func makeBursts(_ queue: isolated NetworkQueue) async throws {
    while true {
      var burst = try queue.makeBurst(count: Self.batch, length: measured.size)
      burst.forEach { writeHeaders(&$0) }
      try await queue.submit(burst)
    }
  }

  private func makeAndSubmit(_ queue: isolated NetworkQueue) async throws {
    while true { try await queue.submit(makePacket(in: queue.pool)) }
  }

  private func makeAndSend(_ queue: isolated NetworkQueue) async throws {
    while true { try await queue.send(makePacket(in: queue.pool)) }
  }

  private func makeAndSendBatches(_ queue: isolated NetworkQueue) async throws {
    while true {
      var packets: [Packet] = []
      packets.reserveCapacity(Self.batch)
      for _ in 0..<Self.batch { packets.append(try makePacket(in: queue.pool)) }
      try await queue.send(contentsOf: consume packets)
    }
  }

  private func makePacket(in pool: PacketPool) throws(NetworkDeviceError) -> Packet {
    var packet = try Packet(count: measured.size, in: pool)
    packet.withMutableBytes { writeHeaders(&$0) }
    return packet
  }

  /// Ethernet, IPv4 and UDP headers, 42 bytes: as much as testpmd's txonly writes into each of its frames.
  @inline(__always) private func writeHeaders(_ frame: inout MutableRawSpan) {
    // To 02:00:00:00:00:00 from 02:00:00:00:00:01, IPv4.
    frame.storeBytes(of: 0x0002_0000_0000_0002, toByteOffset: 0, as: UInt64.self)
    frame.storeBytes(of: 0x0045_0008_0100_0000, toByteOffset: 8, as: UInt64.self)
    let length = UInt16(truncatingIfNeeded: measured.size - 14).bigEndian
    frame.storeBytes(of: 0x1140_0000_0000_0000 | UInt64(length), toByteOffset: 16, as: UInt64.self)
    // Addresses of the benchmark network 198.18.0.0/15 and the port discard.
    frame.storeBytes(of: 0x12c6_0100_12c6_0000, toByteOffset: 24, as: UInt64.self)
    frame.storeBytes(of: 0x0000_0900_0900_0200, toByteOffset: 32, as: UInt64.self)
    frame.storeBytes(of: 0, toByteOffset: 40, as: UInt16.self)
  }

  /// An endless source of frames for a pipeline.
  private struct Source: PacketSequence {
    let traffic: Traffic
    let pool: PacketPool

    func makeAsyncIterator() -> Iterator { Iterator(source: self) }

    struct Iterator: PacketIterator {
      let source: Source

      mutating func takePacket() -> Packet? { try? source.traffic.makePacket(in: source.pool) }

      nonisolated(nonsending) mutating func nextPacket() async -> Packet? { takePacket() }
    }
  }
}
