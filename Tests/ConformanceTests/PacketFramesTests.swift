import CTestSupport
import Foundation
import Netdev
import PacketFormats
import PacketSocket
import Synchronization
import TestSupport
import Testing

/// Frames that are not in the ring as they were on the wire: the driver makes them so, or drops and counts them.
@Suite(.serialized, .timeLimit(.minutes(2)), .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct PacketFramesTests {
  /// A device at `packet0`, and what it has received; whoever sends does so by `packet1`.
  final class Bench: Sendable {
    let namespace = NamespaceThread()
    let device: NetworkDevice
    private let received = Mutex<[[UInt8]]>([])
    private let running = Mutex<Task<Void, any Error>?>(nil)

    init() async throws {
      try await namespace.shell(
        """
        echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
        ip link set packet0 up && ip link set packet1 mtu 9000 up
        """)
      let driver = try await namespace.run { try PacketDriver("packet0") }
      device = try await NetworkDevice.open(driver: driver)
      let task = Task { [device, self] in
        try await device.run { queue in
          for await packet in queue.packets {
            let bytes = [UInt8](packet)
            self.received.withLock { $0.append(bytes) }
          }
        }
      }
      running.withLock { $0 = task }
    }

    func send(_ bytes: [UInt8], _ offload: test_offload = test_offload()) async throws {
      let result = try await namespace.run { unsafe test_send_frame("packet1", bytes, bytes.count, offload, 1) }
      try #require(result == 0, "\(result)")
    }

    /// The frames received, when there are so many.
    func frames(_ count: Int) async throws -> [[UInt8]] {
      try await waitUntil("\(count) frames") { received.withLock { $0.count } >= count }
      return received.withLock { $0 }
    }

    var counts: QueueDriverStatistics { device.totalStatistics.driver }

    /// Nothing is left: every buffer is in the pool.
    func close() async throws {
      try await device.close()
      try await running.withLock { $0 }?.value
      #expect(device.pool.free == device.pool.configuration.slots)
    }
  }

  static let addresses: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]

  /// A frame of an EtherType for experiments behind tags.
  static func frame(tags: [[UInt8]], payload: Int) -> [UInt8] {
    addresses + tags.flatMap { $0 } + [0x88, 0xb5] + (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 7) }
  }

  @Test(arguments: [
    [[0x81, 0x00, 0x00, 0x05]], [[0x81, 0x00, 0xef, 0xff]], [[0x88, 0xa8, 0x00, 0x07], [0x81, 0x00, 0x20, 0x05]],
    [[0x81, 0x00, 0x00, 0x00]], [],
  ])
  func `the VLAN tags that the kernel takes out of a frame are put back`(_ tags: [[UInt8]]) async throws {
    let bench = try await Bench()
    let frames = [2, 3, 46, tags.count > 1 ? 1496 : 1500].map { Self.frame(tags: tags, payload: $0) }
    for frame in frames { try await bench.send(frame) }
    #expect(try await bench.frames(frames.count) == frames)
    #expect(bench.counts.receiveDrops == 0)
    try await bench.close()
  }

  /// A datagram, in as many tags, whose checksum has only the sum of the pseudo-header.
  private static func datagram(tags: Int, payload: Int) throws -> (whole: [UInt8], partial: [UInt8], start: UInt16) {
    let length = 8 + payload
    let total = UInt16(20 + length)
    var header: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 0xff), 0, 0, 0x40, 0, 64, 17, 0, 0]
    header += [10, 0, 0, 1, 10, 0, 0, 2]
    let sum = checksum(header)
    (header[10], header[11]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
    let ports: [UInt8] = [0x10, 0, 0x20, 0, UInt8(length >> 8), UInt8(length & 0xff)]
    let bytes = (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 13) }
    let pseudo: [UInt8] = [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, UInt8(length >> 8), UInt8(length & 0xff)]
    let (seed, full) = (~checksum(pseudo), checksum(pseudo + ports + [0, 0] + bytes))
    let front = addresses + (0..<tags).flatMap { _ in [0x81, 0, 0, 5] as [UInt8] } + [8, 0] + header + ports
    let right = full == 0 ? 0xffff : full
    return (
      front + [UInt8(right >> 8), UInt8(right & 0xff)] + bytes, front + [UInt8(seed >> 8), UInt8(seed & 0xff)] + bytes,
      UInt16(14 + 4 * tags + 20)
    )
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt16 {
    var sum = InternetChecksum()
    // Bytes: any value is a valid one.
    unsafe sum.add(bytes.span.bytes)
    return sum.value
  }

  @Test(arguments: [0, 1]) func `a checksum that the sender left to its interface is completed`(_ tags: Int)
    async throws
  {
    let bench = try await Bench()
    var wanted: [[UInt8]] = []
    for payload in [0, 1, 2, 63, 64, 1471, 1472] {
      let datagram = try Self.datagram(tags: tags, payload: payload)
      wanted.append(datagram.whole)
      try await bench.send(datagram.partial, test_offload(start: datagram.start, offset: 6, piece: 0))
    }
    #expect(try await bench.frames(wanted.count) == wanted)
    try await bench.close()
  }

  @Test func `frames that stand for several, and frames too long, are dropped and counted, and the next one comes`()
    async throws
  {
    let bench = try await Bench()
    let last = Self.frame(tags: [], payload: 100)
    var segments = try Self.datagram(tags: 0, payload: 3000).partial
    // A TCP segment: its header has five words.
    (segments[23], segments[46]) = (6, 0x50)
    // What the wire takes from now on is longer than what the device was opened for.
    try await bench.namespace.shell("ip link set packet0 mtu 9000")
    try await bench.send(segments, test_offload(start: 34, offset: 16, piece: 500))
    try await bench.send(Self.frame(tags: [], payload: 1501))
    // Longer than a slot of the ring.
    try await bench.send(Self.frame(tags: [], payload: 8000))
    // A tag does not make a frame of another size shorter.
    try await bench.send(Self.frame(tags: [[0x81, 0, 0, 5]], payload: 1501))
    try await bench.send(last)
    #expect(try await bench.frames(1) == [last])
    try await waitUntil("the counts of the turn") { bench.counts.receiveDrops == 4 }
    #expect(bench.counts.receiveDropsSegmentation == 1)
    #expect(bench.counts.receiveDropsLength == 3)
    try await bench.close()
  }

  @Test func `what nobody fetches is dropped by the kernel, and counted`() async throws {
    let namespace = NamespaceThread()
    try await namespace.shell(
      """
      echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
      ip link set packet0 up && ip link set packet1 up
      """)
    let driver = try await namespace.run { try PacketDriver("packet0") }
    let device = try await NetworkDevice.open(driver: driver)
    let frame = Self.frame(tags: [], payload: 50)
    try await namespace.run {
      #expect(unsafe test_send_frame("packet1", frame, frame.count, test_offload(), 3000) == 0)
    }
    // The ring has 2048 slots.
    #expect(device.deviceDrops[0].received == ["noReceiveBuffer": 952])
    #expect(device.deviceDrops[0].received == ["noReceiveBuffer": 952], "asked again, it is not added again")
    try await device.close()
    #expect(device.deviceDrops[0].received == ["noReceiveBuffer": 952], "and it stays")
  }
}
