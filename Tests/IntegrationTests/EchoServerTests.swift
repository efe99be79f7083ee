import Foundation
import TestSupport
import Testing

/// The program itself, as a person starts it.
@Suite(.serialized, .timeLimit(.minutes(5))) struct EchoServerTests {
  @Test(arguments: [SIGINT, SIGTERM])
  func `it says what to type, answers, and ends cleanly with a summary when asked`(_ signal: CInt) async throws {
    let port = Int.random(in: 50_001...60_000)
    let server = try RunningProgram(["host-udp:127.0.0.1:\(port)"])
    try await server.waitForOutput("try:  printf hello | nc -u -w1 127.0.0.1 \(port)")
    let exchange = try await hostExchange(port: UInt16(port), total: 100, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    let end = await server.end(with: signal)
    #expect(end.status == 0)
    #expect(end.output.contains("queue 0: 100 received, 100 sent, 0 failed"))
    #expect(end.output.contains("udp echo 100"))
    #expect(end.complaints.isEmpty, "\(end.errors)")
  }

  /// The error of a URL that says nothing names them all.
  @Test(arguments: ["EchoServer", "Forwarder"])
  func `its help names every device of this build`(_ program: String) async throws {
    let refusal = await (try RunningProgram(["nonsense:", "--address", "10.0.0.2/24"])).end(with: nil)
    let advice = try #require(refusal.errors.split(separator: "; use ").last, "\(refusal)")
    let schemes = advice.split { !$0.isLetter && $0 != "-" && $0 != ":" }.filter { $0.hasSuffix(":") }
    #expect(schemes.contains("packet:"), "\(refusal)")
    let help = await (try RunningProgram(["--help"], program: program)).end(with: nil)
    for scheme in schemes { #expect(help.output.contains(scheme), "\(help.output)") }
  }

  @Test func `a peer that does not answer in time is EX_TEMPFAIL`() async throws {
    let path = "/tmp/netdev-absent-\(UInt32.random(in: 0 ... .max)).sock"
    let arguments = ["vhost-user:\(path)?server=1&connect_timeout=1", "--address", "10.0.0.2/24"]
    let end = await (try RunningProgram(arguments)).end(with: nil)
    #expect(end.status == EX_TEMPFAIL, "\(end)")
    #expect(end.lines(of: "EchoServer").count == 1, "\(end)")
  }

  @Test func `rates are printed a queue when asked`() async throws {
    let port = Int.random(in: 50_001...60_000)
    let server = try RunningProgram(["host-udp:127.0.0.1:\(port)", "--rates"])
    try await server.waitForOutput("queue 0: 0 packets/s in")
    #expect(await server.end(with: SIGINT).status == 0)
  }

  @Test(arguments: [
    ("nonsense", "write it as loopback:"), ("tap:", "name one"),
    ("loopback:?queue=2", "the option 'queue'; a loopback: device has"),
    ("host-udp:127.0.0.1:99999", "write address and port"), ("loopback:?queues=0", "a number from 1 to 256"),
    ("loopback:?queue_size=100", "power of two"), ("tap:tap0?queues=257", "a number from 1 to 256"),
  ])
  func `a bad URL is one clear line and EX_USAGE`(_ url: String, _ advice: String) async throws {
    let end = await (try RunningProgram([url, "--address", "10.0.0.2/24"])).end(with: nil)
    #expect(end.status == EX_USAGE)
    #expect(end.errors.contains(advice), "\(end.errors)")
    #expect(end.errors.split(separator: "\n").count == 1)
  }

  @Test func `a device of a later build is named, with EX_UNAVAILABLE`() async throws {
    let end = await (try RunningProgram(["vhost-net:tap0", "--address", "10.0.0.2/24"])).end(with: nil)
    #expect(end.status == EX_UNAVAILABLE)
    #expect(end.errors.contains("vhost-net: devices are not in this build"))
    #expect(end.errors.split(separator: "\n").count == 1)
  }

  @Test(arguments: ["10.0.0.300/24", "fd00::1", "fd00::1/129", "127.0.0.1/8", "ff02::1/64"])
  func `an address that no host can have is EX_USAGE`(_ address: String) async throws {
    let end = await (try RunningProgram(["loopback:", "--address", address])).end(with: nil)
    #expect(end.status == EX_USAGE)
    #expect(end.errors.contains(address))
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
  func `addresses of both families are answered for by one server`() async throws {
    let script = """
      echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
      \(RunningProgram.path.path) tap:tap0 --address 10.9.0.2/24 --address fd00:9::2/64 --address fe80::7/64 &
      for i in $(seq 600); do ip link show tap0 2>/dev/null | grep -q LOWER_UP && break; sleep 0.1; done
      ip addr add 10.9.0.1/24 dev tap0 && ip -6 addr add fd00:9::1/64 dev tap0 nodad || exit 1
      for peer in 10.9.0.2 fd00:9::2 fe80::7%tap0; do ping -q -c 3 -i 0.01 -W 20 $peer >/dev/null || exit 2; done
      kill -INT $! && wait $!
      """
    let end = await (try RunningProgram(command: ["unshare", "-n", "sh", "-c", script])).end(with: nil)
    #expect(end.status == 0, "\(end)")
    #expect(end.output.contains("try:  ping 10.9.0.2"))
    #expect(end.output.contains("icmp echo 9"))
  }

  @Test func `a port that is taken is EX_CANTCREAT`() async throws {
    let port = Int.random(in: 50_001...60_000)
    let first = try RunningProgram(["host-udp:127.0.0.1:\(port)"])
    try await first.waitForOutput("try:")
    let second = await (try RunningProgram(["host-udp:127.0.0.1:\(port)"])).end(with: nil)
    #expect(second.status == EX_CANTCREAT)
    #expect(second.errors.split(separator: "\n").count == 1)
    #expect(await first.end(with: SIGINT).status == 0)
  }

  @Test func `more queue pairs than a port has are EX_USAGE`() async throws {
    let port = Int.random(in: 50_001...60_000)
    let end = await (try RunningProgram(["host-udp:127.0.0.1:\(port)?queues=2"])).end(with: nil)
    #expect(end.status == EX_USAGE)
    #expect(end.errors.contains("2 queue pairs were asked for, the device offers 1"), "\(end.errors)")
    #expect(end.errors.split(separator: "\n").count == 1)
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root, to take rights away"))
  func `missing rights are EX_NOPERM`() async throws {
    let ordinary = await
      (try RunningProgram(
        ["tap:tap0", "--address", "10.0.0.2/24"], before: ["setpriv", "--reuid=65534", "--clear-groups"]))
      .end(with: nil)
    #expect(ordinary.status == EX_NOPERM, "\(ordinary.errors)")
    #expect(ordinary.errors.split(separator: "\n").count == 1)
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root, to hide /dev/net/tun"))
  func `a machine without /dev/net/tun is told so, with EX_UNAVAILABLE`() async throws {
    let script = "mount -t tmpfs none /dev/net && exec \(RunningProgram.path.path) tap:tap0 --address 10.0.0.2/24"
    let end = await (try RunningProgram(command: ["unshare", "-m", "sh", "-c", script])).end(with: nil)
    #expect(end.status == EX_UNAVAILABLE, "\(end.errors)")
    #expect(end.errors.contains("/dev/net/tun"))
    #expect(end.errors.split(separator: "\n").count == 1)
  }
}
