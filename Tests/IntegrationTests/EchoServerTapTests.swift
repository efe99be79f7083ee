import Foundation
import TestSupport
import Testing
import VirtioDevice

/// The program on a TAP interface, in a namespace of its own.
@Suite(.serialized, .timeLimit(.minutes(10)), .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct EchoServerTapTests {
  private let namespace = NamespaceThread()

  private func start(_ url: String, _ options: [String] = []) async throws -> RunningProgram {
    try await namespace.run { try RunningProgram([url, "--address", "10.9.0.2/24"] + options) }
  }

  /// The program on `tap0` with two queues, where the kernel has the address 10.9.0.1.
  private func serve(_ options: [String] = []) async throws -> RunningProgram {
    // Without IPv6 the kernel sends nothing of its own accord.
    try await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    let server = try await start("tap:tap0?queues=2", options)
    try await server.waitForOutput("try:  ping 10.9.0.2")
    try await namespace.shell("ip addr add 10.9.0.1/24 dev tap0")
    return server
  }

  @Test func `an idle server sleeps: no voluntary context switch of any thread in ten seconds`() async throws {
    let server = try await serve()
    try await namespace.shell("ping -q -c 3 -i 0.01 -W 5 10.9.0.2 > /dev/null")
    // Threads that the runtime no longer needs end after some seconds.
    var before = voluntarySwitches(of: server.identifier)
    try await eventually("the server has settled", within: .seconds(120)) {
      let earlier = before
      try? await Task.sleep(for: .seconds(6))
      before = voluntarySwitches(of: server.identifier)
      return before == earlier
    }
    #expect(before.count >= 3, "the main thread and two loops")
    try await Task.sleep(for: .seconds(10))
    #expect(voluntarySwitches(of: server.identifier) == before)
    try await namespace.shell("ping -q -c 1 -W 5 10.9.0.2 > /dev/null")
    #expect(await server.end(with: SIGTERM).status == 0)
  }

  @Test func `live rates are each queue's own, and together they are what came in and went out`() async throws {
    let server = try await serve(["--rates"])
    var datagrams = 0
    try await eventually("rates of both queues", within: .seconds(120)) {
      let exchange = try? await namespace.exchange(
        with: "10.9.0.2", flows: 64, window: 4, total: 10_000, sizes: 0...1472)
      #expect(exchange?.isComplete == true, "\(String(describing: exchange))")
      datagrams += exchange?.right ?? 0
      return (0..<2).allSatisfy { queue in
        let rates = Self.rates(of: queue, in: server.printed)
        return rates.contains { $0.received > 0 } && rates.contains { $0.sent > 0 }
      }
    }
    // A line is of a second, or of as long as a busy machine made of it: the lines together are about what there was.
    try await eventually("the rates of the last second") {
      let rates = (0..<2).flatMap { Self.rates(of: $0, in: server.printed) }
      return rates.reduce(0) { $0 + $1.received } >= datagrams / 2
        && rates.reduce(0) { $0 + $1.sent } >= datagrams / 2
    }
    let end = await server.end(with: SIGTERM)
    #expect(end.status == 0)
    for queue in 0..<2 {
      let rates = Self.rates(of: queue, in: end.output)
      let totals = Self.numbers(after: "queue \(queue): ", before: " failed", in: end.output)
      #expect(totals.count == 1, "\(end.output)")
      #expect(totals.first.map { $0[0] >= rates.reduce(0) { $0 + $1.received } * 98 / 100 } == true, "\(end.output)")
      #expect(totals.first.map { $0[1] >= rates.reduce(0) { $0 + $1.sent } * 98 / 100 } == true, "\(end.output)")
    }
  }

  /// The rates of a queue that have been printed, one a second.
  private static func rates(of queue: Int, in output: String) -> [(received: Int, sent: Int)] {
    output.split(separator: "\n").compactMap { line in
      // "queue 0: 100 packets/s in (64 kbit/s), 99 packets/s out (63.4 kbit/s)"
      let rates = line.split(separator: " packets/s ").dropLast().compactMap { part in
        part.split(separator: " ").last.flatMap { Int($0) }
      }
      guard line.hasPrefix("queue \(queue): "), rates.count == 2 else { return nil }
      return (rates[0], rates[1])
    }
  }

  /// The three numbers of each line that begins and ends so.
  private static func numbers(after start: String, before end: String, in output: String) -> [[Int]] {
    output.split(separator: "\n").filter { $0.hasPrefix(start) && $0.hasSuffix(end) }
      .map { $0.dropFirst(start.count).split { !$0.isASCII || !$0.isNumber }.compactMap { Int($0) } }
      .filter { $0.count == 3 }
  }

  @Test func `an interface that another process has is EX_CANTCREAT`() async throws {
    let first = try await start("tap:tap9")
    try await first.waitForOutput("try:")
    let second = await (try await start("tap:tap9")).end(with: nil)
    #expect(second.status == EX_CANTCREAT, "\(second)")
    #expect(second.errors.contains("TAP interface tap9"))
    #expect(second.errors.split(separator: "\n").count == 1)
    #expect(await first.end(with: SIGTERM).status == 0)
  }

  @Test func `two queues of an interface that was made for one are EX_USAGE`() async throws {
    try await namespace.shell("ip tuntap add dev tap9 mode tap")
    let end = await (try await start("tap:tap9?queues=2")).end(with: nil)
    #expect(end.status == EX_USAGE, "\(end)")
    #expect(end.errors.contains("ip tuntap add dev tap9 mode tap multi_queue"))
    #expect(end.errors.split(separator: "\n").count == 1)
  }

  @Test func `an interface of which another process has queues is EX_CANTCREAT`() async throws {
    let others = try await namespace.run { try TapBackend("tap9", queues: 2) }
    for queues in [1, 2] {
      let end = await (try await start("tap:tap9?queues=\(queues)")).end(with: nil)
      #expect(end.status == EX_CANTCREAT, "\(end)")
      #expect(end.errors.contains("not closed yet, has 2 of its queues"))
      #expect(end.errors.split(separator: "\n").count == 1)
    }
    others.close()
  }

  @Test(arguments: [SIGINT, SIGTERM])
  func `the interface goes with the server`(_ signal: CInt) async throws {
    let server = try await serve()
    try await namespace.shell("ip link show tap0 > /dev/null")
    #expect(await server.end(with: signal).status == 0)
    try await namespace.shell("! ip link show tap0 2> /dev/null")
  }

  @Test func `the interface goes with a server that fails once it has it`() async throws {
    // Numbers of interfaces are given out in turn: they tell of one that came and went.
    let index = "$(ip -o link show probe | cut -d: -f1)"
    let probe = "ip tuntap add dev probe mode tap"
    let server = RunningProgram.path.path
    try await namespace.shell(
      """
      \(probe) && before=\(index) && ip link del probe || exit 1
      \(server) 'tap:tap0?queues=2' --address 127.0.0.1/8 2> /dev/null; test $? = \(EX_USAGE) || exit 2
      ip link show tap0 2> /dev/null && exit 3
      \(probe) && test \(index) = $((before + 2)) || exit 4
      """)
  }
}
