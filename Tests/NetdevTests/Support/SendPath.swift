import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Every way to send one packet. What holds for one holds for all of them.
enum SendPath: CaseIterable {
  case send, submit, outside, receipt, batch, forward, forwardAny
  /// As a burst of a device on another pool, whose frames must be copied: sent and awaited, or submitted.
  case burst, burstSubmitted

  /// Those that send the packet itself, which may lie anywhere and be of any length.
  static let ofPacket = allCases.filter { ![.burst, .burstSubmitted].contains($0) }

  /// The operation that errors name.
  var operation: String {
    switch self {
    case .send, .burst: "send"
    case .submit, .outside, .burstSubmitted: "submit"
    case .receipt: "submitForReceipt"
    case .batch: "send(contentsOf:)"
    case .forward, .forwardAny: "forward"
    }
  }

  /// In a pipeline a frame that is too long is dropped and counted; everywhere else its sender is told.
  var isPipeline: Bool { self == .forward || self == .forwardAny }

  func send(_ packet: Packet, to queue: NetworkQueue) async throws {
    switch self {
    case .send: try await queue.send(packet)
    case .submit: try await queue.run { queue in try await queue.submit(packet) }
    case .outside: try await queue.submit(packet)
    case .receipt: try await queue.submitForReceipt(packet).released
    case .batch: try await queue.send(contentsOf: [packet])
    case .forward: try await queue.forward(from: OnePacket(packet: packet))
    case .forwardAny:
      try await queue.forward(
        from: AsyncStream { continuation in
          continuation.yield(packet)
          continuation.finish()
        })
    case .burst, .burstSubmitted: try await sendAsBurst(packet, to: queue)
    }
  }

  private func sendAsBurst(_ packet: Packet, to queue: NetworkQueue) async throws {
    let driver = ScriptedDriver(mode: .hold)
    let other = try await NetworkDevice.open(driver: driver)
    #expect(await driver.deliver(packet.array))
    let outcome: Result<Void, NetworkDeviceError> = await {
      do throws(NetworkDeviceError) {
        guard let burst = await other.queues[0].receiveBurst() else { return .success(()) }
        if self == .burst { try await queue.send(burst) } else { try await queue.submit(burst) }
        return .success(())
      } catch { return .failure(error) }
    }()
    try await other.close()
    try outcome.get()
  }
}

/// A source of one packet, as a pipeline takes it without leaving the loop.
private struct OnePacket: PacketSequence {
  typealias Element = Packet
  typealias Failure = Never
  let packet: Packet

  func makeAsyncIterator() -> Iterator { Iterator(packet: packet) }

  struct Iterator: PacketIterator {
    var packet: Packet?
    nonisolated(nonsending) mutating func nextPacket() async -> Packet? { packet.take() }
  }
}
