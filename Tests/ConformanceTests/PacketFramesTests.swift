import CNetdevSystem
import CTestSupport
import Foundation
import Glibc
import Netdev
import PacketFormats
import PacketSocket
import Synchronization
import TestSupport
import Testing

/// Frames that are not in the ring as they were on the wire: the driver makes them so, or drops and counts them.
@Suite(
  .serialized, .quietLoops, .timeLimit(.minutes(2)),
  .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct PacketFramesTests {
  /// A device at `packet0`, and what it has received; whoever sends does so by `packet1`.
  final class Bench: Sendable {
    let namespace = NamespaceThread()
    let device: NetworkDevice
    /// What the driver has logged.
    let log = RecordedLog()
    private let received = Mutex<[[UInt8]]>([])
    private let running = Mutex<Task<Void, any Error>?>(nil)

    /// - Parameters:
    ///   - isPromiscuous: whether frames for other stations are received, which those of most tests are.
    ///   - queues: of the device.
    init(isPromiscuous: Bool = true, queues: Int = 1) async throws {
      try await namespace.shell(
        """
        echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
        ip link set packet0 up && ip link set packet1 mtu 9000 up
        """)
      let options = Self.options(isPromiscuous: isPromiscuous)
      let driver = try await namespace.run { [log] in
        try PacketDriver("packet0", queues: queues, options: options, logger: log.logger)
      }
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

    static func options(isPromiscuous: Bool) -> PacketDriver.Options {
      var options = PacketDriver.Options()
      options.isPromiscuous = isPromiscuous
      return options
    }

    func send(_ bytes: [UInt8], _ offload: test_offload = test_offload()) async throws {
      let result = try await namespace.run { unsafe test_send_frame("packet1", bytes, bytes.count, offload, 1) }
      try #require(result == 0, "\(result)")
    }

    /// The frames received, when there are so many.
    func frames(_ count: Int) async throws -> [[UInt8]] {
      try await eventually("\(count) frames") { received.withLock { $0.count } >= count }
      return received.withLock { $0 }
    }

    /// The reasons of drops that the log has, one for each line about one.
    var droppedReasons: [String] { log.all.compactMap { $0.metadata["reason"] } }

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
    try await eventually("the counts of the turn") { bench.counts.receiveDrops == 4 }
    #expect(bench.counts.receiveDropsSegmentation == 1)
    #expect(bench.counts.receiveDropsLength == 3)
    #expect(bench.droppedReasons == ["segmentation", "tooLong"], "each is told once")
    try await bench.close()
  }

  @Test func `what nobody fetches is dropped by the kernel, and counted`() async throws {
    let namespace = NamespaceThread()
    try await namespace.shell(
      """
      echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
      ip link set packet0 up && ip link set packet1 up
      """)
    let driver = try await namespace.run {
      try PacketDriver("packet0", options: Bench.options(isPromiscuous: true))
    }
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

  @Test(arguments: [1, 3], [false, true])
  func `frames for other stations are received by who asks for them`(_ queues: Int, _ isPromiscuous: Bool) async throws
  {
    let bench = try await Bench(isPromiscuous: isPromiscuous, queues: queues)
    let address = try #require(bench.device.information.hardwareAddress)
    let own = "\(address)".split(separator: ":").compactMap { UInt8($0, radix: 16) }
    // The other station's first: were it to come, it would have come before.
    let destinations: [[UInt8]] = [
      [2, 0, 0, 0, 0, 1], own, [UInt8](repeating: 0xff, count: 6), [0x01, 0, 0x5e, 0, 0, 1],
    ]
    let frames = destinations.map { $0 + Self.frame(tags: [], payload: 50).dropFirst(6) }
    for frame in frames { try await bench.send(frame) }
    let wanted = Set(isPromiscuous ? frames : [[UInt8]](frames.dropFirst()))
    let received = try await bench.frames(wanted.count)
    #expect(Set(received) == wanted)
    #expect(received.count == wanted.count)
    try await bench.close()
  }

  @Test func `what is sent while the interface is down is dropped, and counted as such`() async throws {
    let bench = try await Bench()
    var changes = bench.device.linkChanges.makeAsyncIterator()
    try await bench.namespace.shell("ip link set packet0 down")
    guard case .down(let cause)? = await changes.next() else { throw NetworkDeviceError(.system, "it is not told") }
    #expect(cause.code == .linkDown)
    let frame = Self.frame(tags: [], payload: 50)
    for count in 1...3 {
      try await bench.device.queues[0].send(Packet(copying: frame, in: bench.device.pool))
      #expect(bench.device.deviceDrops[0].transmitted == ["linkDown": UInt64(count)])
    }
    try await bench.close()
  }

  @Test func `a driver that has been shut down is opened again`() async throws {
    // In this process' namespace: there the loop is that looks for the interface again.
    let driver = try PacketDriver("lo", queues: 2)
    for queues in [1, 2, 1] {
      var configuration = NetworkDevice.Configuration()
      (configuration.queuePairs, configuration.queueSize) = (queues, 16)
      let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
      #expect(device.deviceDrops.count == queues)
      let frame = [UInt8](repeating: 0, count: 12) + Self.frame(tags: [], payload: 50).dropFirst(12)
      let isBack = Mutex(false)
      let running = Task {
        try await device.run { queue in
          // Others may use the interface, too.
          for await packet in queue.packets where [UInt8](packet) == frame {
            isBack.withLock { $0 = true }
          }
        }
      }
      try await device.queues[0].send(Packet(copying: frame, in: device.pool))
      try await eventually("the frame is back") { isBack.withLock { $0 } }
      try await device.close()
      try await running.value
    }
  }

  @Test func `an interface of another namespace is not mistaken for one of the same name`() async throws {
    let namespace = NamespaceThread()
    let driver = try await namespace.run { try PacketDriver("lo") }
    try await NetworkDevice.open(driver: driver).close()
    let error = await #expect(throws: NetworkDeviceError.self) { _ = try await NetworkDevice.open(driver: driver) }
    #expect(error?.code == .notFound, "\(String(describing: error))")
    #expect(error?.advice.contains("another driver") == true)
  }

  @Test func `no frame comes before all queues have joined, and so none comes twice`() async throws {
    let namespace = NamespaceThread()
    try await namespace.shell(
      """
      echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
      ip link set packet0 up && ip link set packet1 up
      """)
    let descriptor = try await namespace.run { unsafe test_packet_socket("packet1") }
    try #require(descriptor >= 0)
    let stop = Mutex(false)
    let stopped = Mutex(false)
    Thread.detachNewThread {
      var frame = Self.frame(tags: [], payload: 50)
      var number: UInt32 = 0
      while !stop.withLock({ $0 }) {
        number &+= 1
        for index in 0..<4 { frame[14 + index] = UInt8(truncatingIfNeeded: number >> (8 * UInt32(index))) }
        _ = unsafe write(descriptor, frame, frame.count)
      }
      stopped.withLock { $0 = true }
    }
    for _ in 0..<10 {
      let driver = try await namespace.run {
        try PacketDriver("packet0", queues: 8, options: Bench.options(isPromiscuous: true))
      }
      let device = try await NetworkDevice.open(driver: driver)
      let seen = Mutex<(numbers: Set<[UInt8]>, twice: Int)>(([], 0))
      let running = Task {
        try await device.run { queue in
          for await packet in queue.packets {
            let number = [UInt8]([UInt8](packet)[14..<18])
            seen.withLock { if !$0.numbers.insert(number).inserted { $0.twice += 1 } }
          }
        }
      }
      try await eventually("frames come") { seen.withLock { $0.numbers.count } >= 100 }
      try await device.close()
      try await running.value
      #expect(seen.withLock { $0.twice } == 0)
    }
    stop.withLock { $0 = true }
    try await eventually("the sender has ended") { stopped.withLock { $0 } }
    close(descriptor)
  }

  @Test(arguments: [ENOPROTOOPT, EPERM, EACCES, ENOSYS, EOPNOTSUPP])
  func `a socket that cannot leave out what this machine sends has its rings all the same`(
    _ error: CInt
  ) async throws {
    let results = try await NamespaceThread().run { () -> [CInt] in
      let socket = netdev_packet_open()
      defer { netdev_close(socket) }
      let rings = netdev_packet_rings(slot_size: 2048, receive_slots: 64, transmit_slots: 64)
      var prepared: CInt = -1
      let filtered = onThreadRefusing(test_call_ignore_outgoing, error) {
        var memory: UnsafeMutableRawPointer?
        var step: CInt = 0
        prepared = unsafe netdev_packet_prepare(socket, rings, &memory, &step)
        if let memory = unsafe memory { unsafe netdev_unmap(memory, netdev_packet_length(rings)) }
      }
      return [filtered, prepared]
    }
    #expect(results == [0, 0])
  }

  @Test func `only refusals in a row of which nobody knows that they pass end a queue`() {
    func after(_ errors: [CInt]) -> Bool {
      var (patience, isBorne) = (PacketPatience(), true)
      for error in errors { isBorne = patience.bears(PacketRefusal(sending: error)) }
      return isBorne
    }
    let unknown = [CInt](repeating: EIO, count: PacketPatience.most)
    for passing in [0, EAGAIN, ENOBUFS, ENOMEM] {
      #expect(after([CInt](repeating: passing, count: 1000) + [EIO]))
      #expect(after(unknown + [passing] + unknown))
    }
    #expect(after(unknown))
    #expect(!after(unknown + [EIO]))
    #expect(!after([EPERM]))
    var patience = PacketPatience()
    for _ in 0..<3 {
      for error in unknown {
        let isBorne = patience.bears(PacketRefusal(sending: error))
        #expect(isBorne)
      }
      patience.succeeded()
    }
  }
}
