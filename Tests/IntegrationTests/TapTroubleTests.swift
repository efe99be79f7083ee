import Foundation
import InProcess
import Netdev
import TestSupport
import Testing

/// What happens to an interface under the programs: it takes longer frames, is set down, deleted.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct TapTroubleTests {
  private let namespace = NamespaceThread()

  /// The echo server on `tap0`, where the kernel has the address 10.9.0.1.
  private func serve(_ url: String = "tap:tap0") async throws -> RunningProgram {
    // Without IPv6 the kernel sends nothing of its own accord.
    try await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    let server = try await namespace.run { try RunningProgram([url, "--address", "10.9.0.2/24"]) }
    try await server.waitForOutput("try:  ping 10.9.0.2")
    try await namespace.shell("ip addr add 10.9.0.1/24 dev tap0")
    return server
  }

  private func ping(_ options: String) async throws {
    try await namespace.shell("ping -q -W 5 \(options) 10.9.0.2 > /dev/null")
  }

  @Test func `frames above an MTU that was raised are dropped, counted and logged once, and the server goes on`()
    async throws
  {
    let server = try await serve()
    try await namespace.shell("ip link set tap0 mtu 9000")
    try await namespace.shell("! ping -q -c 3 -i 0.01 -W 1 -M do -s 1476 10.9.0.2 > /dev/null")
    try await ping("-c 3 -i 0.01 -s 1472")
    let end = await server.end(with: SIGTERM)
    #expect(end.status == 0, "\(end)")
    #expect(end.output.contains("icmp echo 3,"), "\(end)")
    #expect(end.output.contains("queue 0: dropped by the device, to be received: tooLong 3"), "\(end)")
    #expect(end.errors.split(separator: "\n").count { $0.contains("reason=tooLong") } == 1, "\(end)")
    #expect(end.errors.split(separator: "\n").count { $0.contains("mtu=9000") } == 1, "\(end)")
  }

  @Test(arguments: [1, 2])
  func `on an interface with an MTU of 9000 pings of every length up to it are answered`(_ queues: Int) async throws {
    try await namespace.shell(
      "ip tuntap add dev tap0 mode tap \(queues > 1 ? "multi_queue" : "") && ip link set tap0 mtu 9000 up")
    let server = try await serve("tap:tap0?queues=\(queues)")
    // Around what one buffer, two, three and all of them hold.
    let sizes = [56, 1472, 1473, 1858, 1878, 1879, 1900, 2006, 3926, 3927, 5974, 5975, 8971, 8972]
    for size in sizes { try await ping("-c 3 -i 0.01 -M do -s \(size)") }
    // In fragments that the server drops; and it goes on.
    try await namespace.shell("! ping -q -c 1 -W 1 -s 8973 10.9.0.2 > /dev/null")
    try await ping("-c 1")
    let end = await server.end(with: SIGTERM)
    #expect(end.status == 0, "\(end)")
    #expect(end.output.contains("icmp echo \(3 * sizes.count + 1),"), "\(end)")
    #expect(end.lines(of: "EchoServer").isEmpty, "\(end)")
  }

  @Test func `an interface that is deleted ends the server, which says so in a line`() async throws {
    try await namespace.shell("ip tuntap add dev tap0 mode tap multi_queue")
    let server = try await serve("tap:tap0?queues=2")
    try await ping("-c 3 -i 0.01")
    try await namespace.shell("ip link del tap0")
    let end = await server.end(with: nil)
    #expect(end.status == EX_UNAVAILABLE, "\(end)")
    #expect(end.lines(of: "EchoServer").count == 1, "\(end)")
    #expect(end.lines(of: "EchoServer").first?.contains("TAP interface tap0") == true, "\(end)")
    #expect(end.lines(of: "EchoServer").first?.contains("the interface was deleted") == true, "\(end)")
    #expect(end.errors.contains("link down"), "\(end)")
    #expect(end.output.contains("icmp echo 3,"), "the summary: \(end)")
  }

  @Test(arguments: ["tap0", "tap1"])
  func `an interface that is deleted ends the Forwarder, which says so in a line`(_ interface: String) async throws {
    try await namespace.shell("ip tuntap add dev tap0 mode tap && ip tuntap add dev tap1 mode tap")
    let program = try await namespace.run { try RunningProgram(["tap:tap0", "tap:tap1"], program: "Forwarder") }
    try await program.waitForOutput("Ctrl-C ends")
    try await namespace.shell("ip link del \(interface)")
    let end = await program.end(with: nil)
    #expect(end.status == EX_UNAVAILABLE, "\(end)")
    #expect(end.lines(of: "Forwarder").count == 1, "\(end)")
    #expect(end.lines(of: "Forwarder").first?.contains("TAP interface \(interface)") == true, "\(end)")
  }

  @Test func `an interface that is set down is told, and served again when it is up`() async throws {
    let server = try await serve()
    try await ping("-c 3 -i 0.01")
    for _ in 0..<3 {
      try await namespace.shell("ip link set tap0 down && ip link set tap0 up")
      try await ping("-c 3 -i 0.01")
    }
    let end = await server.end(with: SIGTERM)
    #expect(end.status == 0, "\(end)")
    #expect(end.output.contains("icmp echo 12,"), "\(end)")
    #expect(end.errors.contains("link down"), "\(end)")
    #expect(end.errors.contains("link up"), "\(end)")
  }

  @Test func `a flood of pings and SIGTERM end the server with 0, each time`() async throws {
    for round in 0..<10 {
      let server = try await serve("tap:tap0?queues=2")
      try await namespace.shell(
        "ping -f -q -c 100000 -W 1 10.9.0.2 > /dev/null 2>&1 & echo $! > /tmp/netdev-flood-$$; sleep 0.3; mv /tmp/netdev-flood-$$ /tmp/netdev-flood"
      )
      let end = await server.end(with: SIGTERM)
      #expect(end.status == 0, "round \(round): \(end)")
      #expect(end.lines(of: "EchoServer").isEmpty, "round \(round): \(end)")
      try await namespace.shell("kill $(cat /tmp/netdev-flood); rm /tmp/netdev-flood; true")
    }
  }

  @Test(arguments: [InProcessTransport.Placement.inline, .ownLoop()])
  func `every frame of an interface is in exactly one counter`(_ placement: InProcessTransport.Placement) async throws {
    let echo = try await TapEcho.start(queues: 2, placement: placement)
    let namespace = echo.namespace
    let exchange = try await namespace.exchange(
      with: TapEcho.address, flows: 8, window: 4, total: 2000, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    // Frames that are too long on the way in, and answers that meet an interface that is down.
    try await namespace.shell(
      "ip link set tap0 mtu 4000 && ! ping -q -c 5 -i 0.01 -W 1 -M do -s 2000 10.9.0.2 > /dev/null")
    try await namespace.shell("ping -q -c 5 -i 0.01 -W 5 10.9.0.2 > /dev/null")
    let queue = echo.device.queues[0]
    try await namespace.shell("ip link set tap0 down")
    try await eventually("the link is down") { !echo.device.isLinkUp }
    for _ in 0..<7 { try await queue.send(Packet(copying: [UInt8](repeating: 0, count: 60), in: echo.device.pool)) }
    try await namespace.shell("ip link set tap0 up")
    try await eventually("the link is up") { echo.device.isLinkUp }
    for _ in 0..<3 { try await queue.send(Packet(copying: [UInt8](repeating: 0, count: 60), in: echo.device.pool)) }
    let file = "/tmp/netdev-counters-\(UUID().uuidString)"
    try await namespace.shell("grep tap0: /proc/net/dev | tr ':' ' ' > \(file)")
    let words = try String(contentsOfFile: file, encoding: .utf8).split(separator: " ").map { String($0) }
    try FileManager.default.removeItem(atPath: file)
    try await echo.stop()

    // The kernel's own counters: what it received was transmitted here, and the other way round.
    let wire = (received: UInt64(words[2]) ?? 0, transmitted: UInt64(words[10]) ?? 0)
    let total = echo.device.totalStatistics
    let drops = echo.device.deviceDrops
    let dropped = (
      transmitted: drops.reduce(0) { $0 + $1.totalTransmitted }, received: drops.reduce(0) { $0 + $1.totalReceived }
    )
    #expect(drops.reduce(0) { $0 + ($1.received["tooLong"] ?? 0) } == 5)
    #expect(drops.reduce(0) { $0 + ($1.transmitted["linkDown"] ?? 0) } == 7)
    #expect(total.packetsSubmitted == total.packetsReleased + total.packetsFailed)
    #expect(total.packetsReleased - dropped.transmitted == wire.received)
    #expect(total.packetsReceived + total.driver.receiveDrops + dropped.received == wire.transmitted)
  }
}
