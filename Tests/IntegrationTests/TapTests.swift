import Foundation
import InProcess
import Netdev
import NetdevDevices
import PacketFormats
import TestSupport
import Testing
import VirtioDevice

/// The whole way on real input: kernel → TAP → virtio rings → `for await packet in queue.packets` → back.
@Suite(
  .serialized, .quietLoops, .timeLimit(.minutes(10)),
  .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct TapTests {
  @Test func `the kernel's ping is answered, small and large`() async throws {
    let echo = try await TapEcho.start()
    try await echo.namespace.shell("ping -q -c 20 -i 0.01 -W 5 \(TapEcho.address) > /dev/null")
    try await echo.namespace.shell("ping -q -c 20 -i 0.01 -W 5 -s 1472 -M do \(TapEcho.address) > /dev/null")
    // A fragmented ping is dropped and counted, not answered and not fatal.
    try await echo.namespace.shell("! ping -q -c 1 -W 1 -s 3000 \(TapEcho.address) > /dev/null")
    try await echo.namespace.shell("ping -q -c 1 -W 5 \(TapEcho.address) > /dev/null")
    try await echo.stop()
  }

  @Test func `the kernel's ping over IPv6 is answered, small and large, on the link and to all nodes`() async throws {
    let echo = try await TapEcho.start(ipv6: true)
    try await echo.namespace.shell("ping -6 -q -c 20 -i 0.01 -W 5 \(TapEcho.ipv6Address) > /dev/null")
    try await echo.namespace.shell("ping -6 -q -c 20 -i 0.01 -W 5 -s 1452 -M do \(TapEcho.ipv6Address) > /dev/null")
    // A fragmented ping is dropped and counted, not answered and not fatal.
    try await echo.namespace.shell("! ping -6 -q -c 1 -W 1 -s 3000 \(TapEcho.ipv6Address) > /dev/null")
    let station = try macAddress(of: echo.device)
    let linkLocal = IPv6Address(linkLocal: station)
    try await echo.namespace.shell("ping -6 -q -c 3 -i 0.01 -W 5 \(linkLocal)%tap0 > /dev/null")
    try await echo.namespace.shell("ping -6 -q -c 1 -W 5 ff02::1%tap0 > /dev/null")
    // What neighbor discovery has told the kernel is where the device is.
    try await echo.namespace.shell(
      "ip -6 neigh show \(TapEcho.ipv6Address) dev tap0 | grep -q 'lladdr \(station)'")
    try await echo.namespace.shell("ping -q -c 1 -W 5 \(TapEcho.address) > /dev/null")
    try await echo.stop()
  }

  @Test(arguments: ["nonce", "none"])
  func `the kernel that wants our IPv6 address is told that it is taken`(_ option: String) async throws {
    let echo = try await TapEcho.start(ipv6: true)
    // Without the nonce (RFC 7527) the question is eight bytes shorter than its answer.
    try await echo.namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/tap0/accept_dad")
    try await echo.namespace.shell(
      "echo \(option == "nonce" ? 1 : 0) > /proc/sys/net/ipv6/conf/tap0/enhanced_dad")
    try await echo.namespace.shell("echo 0 > /proc/sys/net/ipv6/conf/all/enhanced_dad")
    try await echo.namespace.shell("ip -6 addr add fd00:9::2/128 dev tap0")
    try await echo.namespace.shell(
      "for i in $(seq 600); do ip -6 addr show dev tap0 dadfailed | grep -q fd00:9::2 && exit 0; sleep 0.1; done; exit 1"
    )
    // And an address that nobody has is the kernel's.
    try await echo.namespace.shell("ip -6 addr add fd00:9::3/128 dev tap0")
    try await echo.namespace.shell(
      "for i in $(seq 600); do ip -6 addr show dev tap0 -tentative | grep -q fd00:9::3 && exit 0; sleep 0.1; done; exit 1"
    )
    try await echo.stop()
    #expect(echo.device.pool.free == echo.device.pool.configuration.slots)
  }

  @Test(arguments: [InProcessTransport.Placement.inline, .ownLoop()])
  func `datagrams of every size over IPv6 come back unchanged`(_ placement: InProcessTransport.Placement) async throws {
    let echo = try await TapEcho.start(placement: placement, ipv6: true)
    let exchange = try await echo.namespace.exchange(with: TapEcho.ipv6Address, total: 10_000, sizes: 0...1452)
    #expect(exchange.isComplete, "\(exchange)")
    try await echo.stop()
    #expect(echo.device.pool.free == echo.device.pool.configuration.slots)
  }

  @Test(arguments: [InProcessTransport.Placement.inline, .ownLoop()])
  func `datagrams of every size come back unchanged`(_ placement: InProcessTransport.Placement) async throws {
    let echo = try await TapEcho.start(placement: placement)
    // 7919 is prime to 1473: every size occurs.
    let exchange = try await echo.namespace.exchange(with: TapEcho.address, total: 10_000, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    try await echo.stop()
    #expect(echo.device.pool.free == echo.device.pool.configuration.slots)
  }

  @Test func `a million datagrams over 64 flows and two queues: all answered, each flow on one queue`() async throws {
    try await exchangeOverTwoQueues(placement: .inline, total: 1_000_000)
  }

  @Test func `the same with the device on loops of its own`() async throws {
    try await exchangeOverTwoQueues(placement: .ownLoop(), total: 100_000)
  }

  @Test(arguments: [1, 2]) func `what the program does not want stays in the kernel, and nothing else does`(
    _ queues: Int
  ) async throws {
    let echo = try await TapEcho.start(queues: queues)
    let (namespace, device) = (echo.namespace, echo.device)
    let own = try device.hardwareAddress
    let other = MACAddress(2, 0, 0, 0, 0, 99)
    // Asked by everybody's address, answered by ours.
    func expectPing(_ answers: Bool) async throws {
      try await namespace.shell(
        "\(answers ? "" : "! ")ping -q -c 1 -W \(answers ? 5 : 1) \(TapEcho.address) > /dev/null")
    }
    func held() async throws -> Int {
      // Behind the name: eight numbers of what came in, then of what went out bytes, packets, errors, drops.
      let text = try await namespace.run { try String(contentsOfFile: "/proc/thread-self/net/dev", encoding: .utf8) }
      let line = try #require(text.split(separator: "\n").first { $0.contains("tap0:") })
      return try #require(Int(line.split(separator: " ")[12]))
    }
    try await expectPing(true)
    try await device.setReceiveMode(.addressed)
    try await namespace.shell("ip neigh flush dev tap0")
    try await expectPing(true)
    // The engine looks too: what its filter has dropped the kernel has let pass.
    let before = try await held()
    try await namespace.shell("ip neigh replace 10.9.0.3 lladdr \(other) nud permanent dev tap0")
    try await namespace.shell("! ping -q -c 3 -i 0.01 -W 1 10.9.0.3 > /dev/null")
    let filtered = device.peerStatistics.reduce(0) { $0 + ($1.drops.received["filtered"] ?? 0) }
    try await eventually("the kernel has kept them") { try await held() >= before + 3 }
    #expect(filtered == 0)
    // As promiscuous as before, everything comes, and is nobody's.
    try await device.setReceiveMode(.promiscuous)
    let quiet = try await held()
    try await namespace.shell("! ping -q -c 3 -i 0.01 -W 1 10.9.0.3 > /dev/null")
    #expect(try await held() == quiet)
    // With another address the old one is another's.
    try await device.setReceiveMode(.addressed)
    try await device.setHardwareAddress(other)
    try await namespace.shell("ip neigh replace \(TapEcho.address) lladdr \(own) nud permanent dev tap0")
    try await expectPing(false)
    try await namespace.shell("ip neigh replace \(TapEcho.address) lladdr \(other) nud permanent dev tap0")
    try await device.setHardwareAddress(own)
    try await expectPing(false)
    try await namespace.shell("ip neigh del \(TapEcho.address) dev tap0")
    try await expectPing(true)
    try await echo.stop()
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  private func exchangeOverTwoQueues(placement: InProcessTransport.Placement, total: Int) async throws {
    let record = FlowRecord(queues: 2)
    let echo = try await TapEcho.start(queues: 2, placement: placement, observer: record)
    // Once round, so that the kernel's flow table knows where each flow was answered.
    let first = try await echo.namespace.exchange(
      with: TapEcho.address, flows: 64, window: 1, total: 64, sizes: 18...18)
    #expect(first.isComplete, "\(first)")
    let exchange = try await echo.namespace.exchange(
      with: TapEcho.address, flows: 64, window: 4, total: total, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    try await echo.stop()

    let counts = record.snapshot
    let frames = counts.frames.reduce(0, +)
    #expect(frames >= 2 * total)
    for (port, written) in counts.written {
      // An answer goes out on the queue that the question came in on, and never on another.
      #expect(written == counts.read[port], "flow \(port)")
      #expect(written.count { $0 > 0 } == 1, "flow \(port) used \(written)")
    }
    for share in counts.frames { #expect(share * 4 >= frames, "\(counts.frames)") }
  }

  @Test func `what cannot be opened says what to do and leaves nothing`() async throws {
    let namespace = NamespaceThread()
    try await namespace.shell("ip tuntap add dev single mode tap")
    let before = openDescriptors(of: "/dev/net/tun")
    let codes = try await namespace.run {
      ["single?queues=2", "much-too-long-a-name", "lo"].map { target -> String in
        do {
          _ = try TapBackend(String(target.split(separator: "?")[0]), queues: target.contains("?") ? 2 : 1)
          return "opened"
        } catch {
          return (error as? BackendError)?.advice.isEmpty != false ? "no advice" : "refused"
        }
      }
    }
    #expect(codes == ["refused", "refused", "refused"])
    #expect(openDescriptors(of: "/dev/net/tun") == before)
  }
}
