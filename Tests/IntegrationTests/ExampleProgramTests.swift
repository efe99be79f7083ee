import Foundation
import Glibc
import TestSupport
import Testing

/// The example programs, as a person starts them, with the kernel at the other end.
@Suite(.serialized, .timeLimit(.minutes(10)), .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct ExampleProgramTests {
  /// Starts a program in a namespace.
  private func start(
    _ program: String, _ arguments: [String], in namespace: NamespaceThread
  ) async throws -> RunningProgram {
    try await namespace.run { try RunningProgram(arguments, program: program) }
  }

  /// Ends a program as Ctrl-C does, and expects that all was well.
  private func end(_ program: RunningProgram, sourceLocation: SourceLocation = #_sourceLocation) async -> String {
    let end = await program.end(with: SIGINT)
    #expect(end.status == 0, "\(end)", sourceLocation: sourceLocation)
    return end.output
  }

  /// Gives an interface of a program an address, in a namespace of its own.
  private func move(
    _ interface: String, from namespace: NamespaceThread, to other: NamespaceThread, as address: String,
    via router: String? = nil
  ) async throws {
    try await namespace.shell("ip link set \(interface) netns \(other.path)")
    try await other.shell(
      "ip link set lo up && ip addr add \(address) dev \(interface) && ip link set \(interface) up"
        + (router.map { " && ip route add default via \($0)" } ?? ""))
  }

  @Test func `the switch joins three hosts`() async throws {
    let (middle, hosts) = (NamespaceThread(), (0..<3).map { _ in NamespaceThread() })
    let program = try await start("Switch", ["tap:sw0", "tap:sw1", "tap:sw2", "--rates", "1"], in: middle)
    try await eventually("its interfaces are there") { try await middle.interfaceNumber("sw2") != 0 }
    for (number, host) in hosts.enumerated() {
      try await move("sw\(number)", from: middle, to: host, as: "10.6.0.\(number + 1)/24")
    }
    for (number, host) in hosts.enumerated() {
      for other in 0..<3 where other != number {
        try await host.shell("ping -q -c 20 -i 0.01 -W 5 10.6.0.\(other + 1) > /dev/null")
      }
    }
    try await program.waitForOutput("packets/s in")
    _ = await end(program)
  }

  @Test func `the router routes, counts hops, and says where there is no way`() async throws {
    let (middle, left, right) = (NamespaceThread(), NamespaceThread(), NamespaceThread())
    let program = try await start("Router", ["tap:rt0", "10.5.0.1/24", "tap:rt1", "10.5.1.1/24"], in: middle)
    try await eventually("its interfaces are there") { try await middle.interfaceNumber("rt1") != 0 }
    try await move("rt0", from: middle, to: left, as: "10.5.0.2/24", via: "10.5.0.1")
    try await move("rt1", from: middle, to: right, as: "10.5.1.2/24", via: "10.5.1.1")
    try await left.shell("ping -q -c 20 -i 0.01 -W 5 10.5.0.1 > /dev/null")
    try await left.shell("ping -q -c 50 -i 0.01 -W 5 10.5.1.2 > /dev/null")
    try await right.shell("ping -q -c 20 -i 0.01 -W 5 -s 1472 -M do 10.5.0.2 > /dev/null")
    try await left.shell("ping -c 1 -W 5 -t 1 10.5.1.2 | grep -q 'From 10.5.0.1.*Time to live exceeded'")
    try await left.shell("ping -c 1 -W 5 192.0.2.1 | grep -q 'From 10.5.0.1.*Destination Net Unreachable'")
    _ = await end(program)
  }

  @Test func `the store keeps what the kernel's sockets send it`() async throws {
    let namespace = NamespaceThread()
    let program = try await start("KeyValueStore", ["tap:kv0", "--address", "10.8.0.2/24"], in: namespace)
    try await program.waitForOutput("10.8.0.2 7000")
    try await namespace.shell("ip addr add 10.8.0.1/24 dev kv0")
    func ask(_ request: String, _ answer: String) async throws {
      // One datagram each way. The socket is opened by bash, which not every shell can do.
      try await namespace.shell(
        """
        bash -c 'exec 3<>/dev/udp/10.8.0.2/7000; printf "\(request)" >&3
        answer=$(timeout 5 head -c \(answer.utf8.count) <&3); test "$answer" = "\(answer)"'
        """)
    }
    try await ask("get color", "error: no such key")
    try await ask("set color dark blue", "ok")
    try await ask("get color", "dark blue")
    _ = await end(program)
  }

  @Test func `what passes an interface is in the capture`() async throws {
    let namespace = NamespaceThread()
    let path = FileManager.default.temporaryDirectory.appending(path: "capture-\(UUID().uuidString).pcap").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    try await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    let program = try await start("CapturePackets", ["tap:cap0", "--file", path], in: namespace)
    try await program.waitForOutput("Ctrl-C ends")
    try await namespace.shell("ip addr add 10.7.0.1/24 dev cap0; ping -q -c 2 -i 0.1 -W 1 10.7.0.2 > /dev/null; true")
    let output = await end(program)
    #expect(output.contains("packets in \(path)") && output.contains("\tARP"), "\(output)")
    // A header, and at least one question for an address.
    #expect(try Data(contentsOf: URL(filePath: path)).count >= 24 + 16 + 42)
  }

  @Test func `the DHCP server answers the kernel's own questions, and says what is wrong with its arguments`()
    async throws
  {
    let namespace = NamespaceThread()
    let arguments = ["tap:dh0", "--network", "10.9.0.1/24", "--first", "10.9.0.100"]
    let program = try await start("DHCPServer", arguments, in: namespace)
    try await program.waitForOutput("50 addresses from 10.9.0.100 on")
    try await namespace.shell("ip addr add 10.9.0.7/24 dev dh0; ping -q -c 5 -i 0.01 -W 5 10.9.0.1 > /dev/null")
    _ = await end(program)
    let wrong = await
      (try RunningProgram(["loopback:", "--network", "10.9.0.1", "--first", "1"], program: "DHCPServer"))
      .end(with: nil)
    #expect(wrong.status == EX_USAGE && wrong.errors.contains("10.9.0.1"), "\(wrong)")
  }

  private static let hasClient = ["/bin/busybox", "/usr/bin/busybox"]
    .contains(where: FileManager.default.isExecutableFile)

  @Test(.enabled(if: hasClient, "needs busybox, for its DHCP client"))
  func `a DHCP client that owes us nothing gets an address, and what it needs to use it`() async throws {
    let namespace = NamespaceThread()
    let script = FileManager.default.temporaryDirectory.appending(path: "lease-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: script) }
    // What the client was told, as it says it to its script.
    try "#!/bin/sh\n[ $1 = bound ] || exit 0\nip addr add $ip/$mask dev $interface\nip route add default via $router\n"
      .write(toFile: script, atomically: true, encoding: .utf8)
    let program = try await start(
      "DHCPServer", ["tap:dh1", "--network", "10.9.0.1/24", "--first", "10.9.0.100"], in: namespace)
    try await program.waitForOutput("50 addresses from 10.9.0.100 on")
    try await namespace.shell("chmod +x \(script); busybox udhcpc -i dh1 -f -n -q -t 20 -T 1 -s \(script) 2> /dev/null")
    try await namespace.shell("ip addr show dev dh1 | grep -q 'inet 10.9.0.100/24 '")
    try await namespace.shell("ip route | grep -q 'default via 10.9.0.1 '")
    try await namespace.shell("ping -q -c 5 -i 0.01 -W 5 10.9.0.1 > /dev/null")
    _ = await end(program)
  }

  @Test func `the generator sends and measures, and ends by itself`() async throws {
    let arguments = ["loopback:?lossless=1", "--rate", "1000", "--seconds", "1", "--bars"]
    let end = await (try RunningProgram(arguments, program: "TrafficGenerator")).end(with: nil)
    #expect(end.status == 0 && end.output.contains("under way: ") && end.output.contains("samples: median"), "\(end)")
    let counts = end.output.split(separator: "\n")[0].split { !$0.isNumber }.compactMap { Int($0) }
    #expect(counts.count == 2 && counts[0] == counts[1] && counts[0] > 500, "\(end)")
  }

  @Test func `a TUN interface carries ping of both families, small and large, and datagrams`() async throws {
    let namespace = NamespaceThread()
    let program = try await start(
      "EchoServer", ["tun:tun0?queues=2", "--address", "10.4.0.2/24", "--address", "fd00:4::2/64"], in: namespace)
    try await program.waitForOutput("try:  ping 10.4.0.2")
    try await namespace.shell("ip addr add 10.4.0.1/24 dev tun0; ip -6 addr add fd00:4::1/64 dev tun0 nodad")
    try await namespace.shell("ping -q -c 50 -i 0.01 -W 5 10.4.0.2 > /dev/null")
    try await namespace.shell("ping -q -c 20 -i 0.01 -W 5 -s 1472 -M do 10.4.0.2 > /dev/null")
    try await namespace.shell("ping -6 -q -c 50 -i 0.01 -W 5 fd00:4::2 > /dev/null")
    try await namespace.shell("ping -6 -q -c 20 -i 0.01 -W 5 -s 1452 -M do fd00:4::2 > /dev/null")
    let exchange = try await namespace.exchange(with: "10.4.0.2", flows: 16, window: 4, total: 10_000, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    _ = await end(program)
  }
}
