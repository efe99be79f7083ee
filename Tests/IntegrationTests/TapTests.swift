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
