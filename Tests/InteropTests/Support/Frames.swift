import Logging
import NetdevDevices
import TestSupport
import Testing

/// Frames that say which they are: addresses, a local EtherType, a number, and bytes that follow from it.
enum Frames {
  static let destination: [UInt8] = [2, 0, 0, 0, 0, 1]
  static let source: [UInt8] = [2, 0, 0, 0, 0, 2]

  /// Frame number `number` of `count` bytes, 22 at least.
  static func bytes(_ number: Int, count: Int, isSwapped: Bool = false) -> [UInt8] {
    var bytes = isSwapped ? source + destination : destination + source
    bytes += [0x88, 0xb5]
    bytes += (0..<8).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
    bytes += (bytes.count..<max(count, bytes.count)).map { UInt8(truncatingIfNeeded: number &* 7 &+ $0) }
    return bytes
  }

  /// A size for each number, from the smallest frame to the largest.
  static func size(of number: Int) -> Int { 60 + number &* 97 % 1455 }
}

extension Packet {
  /// The packet's bytes as an array.
  var array: [UInt8] {
    withBytes { bytes in (0..<bytes.byteCount).map { unsafe bytes.unsafeLoad(fromByteOffset: $0, as: UInt8.self) } }
  }
}

/// Opens a device that keeps warnings to itself: a test's bodies hold their loops for long.
func open(_ url: String) async throws -> NetworkDevice {
  var configuration = NetworkDevice.Configuration()
  configuration.logger.logLevel = .error
  return try await NetworkDevice.open(url, configuration: configuration)
}

/// Sends `total` frames in bursts and takes each burst back before the next: byte for byte, in order, none missing.
///
/// - Parameter isSwapped: the peer swaps the addresses.
func exchange(
  on queue: isolated NetworkQueue, total: Int, burst: Int, isSwapped: Bool,
  sourceLocation: SourceLocation = #_sourceLocation
) async throws {
  var sent = 0
  var received = 0
  while received < total {
    for _ in 0..<min(burst, total - sent) {
      let bytes = Frames.bytes(sent, count: Frames.size(of: sent))
      try await queue.submit(Packet(copying: bytes, in: queue.pool))
      sent += 1
    }
    while received < sent {
      var iterator = queue.packets.makeAsyncIterator()
      let packet = try #require(
        await iterator.next(), "ended after \(received) of \(total)", sourceLocation: sourceLocation)
      let expected = Frames.bytes(received, count: Frames.size(of: received), isSwapped: isSwapped)
      guard packet.array == expected else {
        Issue.record("frame \(received) of \(total) differs", sourceLocation: sourceLocation)
        return
      }
      received += 1
    }
  }
}
