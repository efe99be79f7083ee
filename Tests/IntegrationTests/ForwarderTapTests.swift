import Foundation
import Synchronization
import TestSupport
import Testing

/// The kernel in one network namespace, the Forwarder, the kernel in another: two TAP interfaces joined, two queues each.
@Suite(.serialized, .timeLimit(.minutes(10)), .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct ForwarderTapTests {
  /// Two namespaces with a wire between them.
  struct Wire {
    let left = NamespaceThread()
    let right = NamespaceThread()
    let program: RunningProgram

    static let leftAddress = (ipv4: "10.77.0.1", ipv6: "fd00:77::1")
    static let rightAddress = (ipv4: "10.77.0.2", ipv6: "fd00:77::2")

    /// Starts the program in the left namespace, and moves one of its interfaces to the right one.
    init(_ arguments: [String] = []) async throws {
      program = try await left.run { [arguments] in
        try RunningProgram(["tap:tap0?queues=2", "tap:tap1?queues=2"] + arguments, program: "Forwarder")
      }
      try await program.waitForOutput("Ctrl-C ends")
      let there = try await right.run { try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/thread-self") }
      try await left.shell("ip link set tap1 netns /proc/\(there)/ns/net")
      try await Self.configure(left, "tap0", Self.leftAddress)
      try await Self.configure(right, "tap1", Self.rightAddress)
    }

    private static func configure(
      _ namespace: NamespaceThread, _ interface: String, _ address: (ipv4: String, ipv6: String)
    ) async throws {
      try await namespace.shell(
        """
        ip addr add \(address.ipv4)/24 dev \(interface) && ip -6 addr add \(address.ipv6)/64 dev \(interface) nodad \
        && ip link set \(interface) up
        """)
    }

    /// Ends the program, and expects that it copied nothing and dropped nothing.
    func end(_ signal: CInt = SIGINT, sourceLocation: SourceLocation = #_sourceLocation) async {
      let end = await program.end(with: signal)
      #expect(end.status == 0, "\(end)", sourceLocation: sourceLocation)
      // The interface that was moved was down meanwhile.
      let ofTheMove = ["link down", "link up", "a frame was dropped"]
      let complaints = end.complaints.filter { line in !ofTheMove.contains { line.contains($0) } }
      #expect(complaints.isEmpty, "\(end)", sourceLocation: sourceLocation)
      for way in ["tap tap0 -> tap tap1: ", "tap tap1 -> tap tap0: "] {
        let line = end.output.split(separator: "\n").first { $0.hasPrefix(way) } ?? ""
        #expect(
          line.contains("dropped: 0 too long, 0 received too long, 0 of several frames, 0 with a bad checksum field,"),
          "\(end)", sourceLocation: sourceLocation)
        #expect(line.hasSuffix("copied: 0"), "\(end)", sourceLocation: sourceLocation)
      }
    }

    /// Frames that each queue received, by the program's last words.
    static func received(_ output: String) -> [Int] {
      output.split(separator: "\n").compactMap { line in
        guard line.contains(" queue "), line.contains(" received, ") else { return nil }
        return line.split(separator: ": ").last?.split(separator: " ").first.flatMap { Int($0) }
      }
    }
  }

  @Test func `the kernel pings the kernel over IPv4 and IPv6, small and large`() async throws {
    let wire = try await Wire()
    for (from, address) in [(wire.left, Wire.rightAddress), (wire.right, Wire.leftAddress)] {
      try await from.shell("ping -q -c 50 -i 0.01 -W 5 \(address.ipv4) > /dev/null")
      try await from.shell("ping -q -c 20 -i 0.01 -W 5 -s 1472 -M do \(address.ipv4) > /dev/null")
      try await from.shell("ping -q -c 20 -i 0.01 -W 5 -s 4000 \(address.ipv4) > /dev/null")
      try await from.shell("ping -6 -q -c 50 -i 0.01 -W 5 \(address.ipv6) > /dev/null")
      try await from.shell("ping -6 -q -c 20 -i 0.01 -W 5 -s 1452 -M do \(address.ipv6) > /dev/null")
    }
    await wire.end()
  }

  @Test func `datagrams of every size come through unchanged both ways, and flows are spread over both queues`()
    async throws
  {
    let wire = try await Wire()
    let (ready, stop) = (Flag(), Flag())
    let right = wire.right
    let echo = Task {
      try await right.run { try KernelSockets.echoDatagrams(port: 7, ready: ready.value, until: stop.value) }
    }
    try await eventually("the echo is there") { ready.value.load(ordering: .acquiring) }
    let one = try await wire.left.exchange(with: Wire.rightAddress.ipv4, total: 10_000, sizes: 0...1472)
    #expect(one.isComplete, "\(one)")
    let six = try await wire.left.exchange(with: Wire.rightAddress.ipv6, total: 10_000, sizes: 0...1452)
    #expect(six.isComplete, "\(six)")
    let many = try await wire.left.exchange(
      with: Wire.rightAddress.ipv4, flows: 64, window: 2, total: 50_000, sizes: 0...1472)
    #expect(many.isComplete, "\(many)")
    stop.value.store(true, ordering: .releasing)
    #expect(try await echo.value == 70_000)
    let end = await wire.program.end(with: SIGTERM)
    #expect(end.status == 0)
    let received = Wire.received(end.output)
    #expect(received.count == 4, "\(end)")
    for frames in received { #expect(frames * 8 >= 70_000, "\(received)") }
    #expect(received.reduce(0, +) >= 140_000)
  }

  @Test(arguments: [true, false]) func `a stream of 32 megabytes has the same hash at both ends`(_ isToTheRight: Bool)
    async throws
  {
    let wire = try await Wire()
    let directory = FileManager.default.temporaryDirectory.appending(path: "netdev-forward-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let (sent, received) = (directory.appending(path: "sent").path, directory.appending(path: "received").path)
    let (sender, receiver) = isToTheRight ? (wire.left, wire.right) : (wire.right, wire.left)
    let address = isToTheRight ? Wire.rightAddress.ipv4 : Wire.leftAddress.ipv4
    let listening = Flag()
    let receiving = Task {
      try await receiver.run { try KernelSockets.receiveStream(port: 7000, into: received, listening: listening.value) }
    }
    try await sender.shell("head -c 33554432 /dev/urandom > \(sent)")
    try await eventually("the receiver listens") { listening.value.load(ordering: .acquiring) }
    try await sender.shell("timeout 120 bash -c 'cat \(sent) > /dev/tcp/\(address)/7000'")
    try await receiving.value
    try await sender.shell("test $(stat -c %s \(received)) = 33554432")
    try await sender.shell("test $(sha256sum < \(sent) | cut -c-64) = $(sha256sum < \(received) | cut -c-64)")
    await wire.end()
  }

  static let isIperfAvailable =
    ProcessInfo.processInfo.environment["CI"] != nil
    || ["/usr/bin", "/usr/local/bin"].contains { FileManager.default.isExecutableFile(atPath: "\($0)/iperf3") }

  // Rates and retransmissions only. That the payload is the same is for the two tests above: iperf3's files (`-F`) miss blocks
  // and the end even over the loopback interface.
  @Test(.enabled(if: isIperfAvailable, "needs iperf3"), arguments: ["", "-u -b 50M", "-R", "-6"])
  func `iperf3 measures the wire`(_ options: String) async throws {
    let wire = try await Wire(["--rates", "1"])
    let address = options == "-6" ? Wire.rightAddress.ipv6 : Wire.rightAddress.ipv4
    let right = wire.right
    try await right.shell(
      """
      timeout 60 iperf3 -s -1 > /dev/null 2>&1 &
      for i in $(seq 600); do ss -ltn | grep -q :5201 && exit 0; sleep 0.1; done; exit 1
      """)
    try await wire.left.shell(
      """
      timeout 50 iperf3 -c \(address) \(options) -P 4 -t 2 -J > /tmp/netdev-iperf-$$
      grep -q '"error"' /tmp/netdev-iperf-$$; status=$?
      bytes=$(grep '"bytes":' /tmp/netdev-iperf-$$ | tail -1 | tr -dc 0-9); rm /tmp/netdev-iperf-$$
      test $status = 1 && test "$bytes" -gt 1000000
      """)
    try await wire.program.waitForOutput("tap tap1 queue 1: ")
    await wire.end()
  }
}

/// A word that two threads share.
final class Flag: Sendable {
  let value = Atomic<Bool>(false)
}

/// The program itself, as a person starts it.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ForwarderTests {
  @Test(arguments: [
    (["nonsense", "loopback:"], "write it as loopback:"), (["loopback:", "tap:"], "name one"),
    (["loopback:", "loopback:?queue_size=100"], "power of two"),
    (["loopback:", "host-udp:127.0.0.1"], "write address"),
    (["loopback:", "loopback:", "--rates", "0"], "--rates is a number"),
  ])
  func `a bad command line is one clear error and EX_USAGE`(_ arguments: [String], _ advice: String) async throws {
    let end = await (try RunningProgram(arguments, program: "Forwarder")).end(with: nil)
    #expect(end.status == EX_USAGE)
    #expect(end.errors.contains(advice), "\(end.errors)")
  }

  @Test func `a device of a later build is named, with EX_UNAVAILABLE`() async throws {
    let end = await (try RunningProgram(["loopback:", "vfio:0000:00:04.0"], program: "Forwarder")).end(with: nil)
    #expect(end.status == EX_UNAVAILABLE)
    #expect(end.errors.split(separator: "\n").count == 1)
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root, to take rights away"))
  func `missing rights are EX_NOPERM in one line`() async throws {
    let end = await
      (try RunningProgram(
        ["loopback:", "tap:tap0"], before: ["setpriv", "--reuid=65534", "--clear-groups"], program: "Forwarder"))
      .end(with: nil)
    #expect(end.status == EX_NOPERM, "\(end.errors)")
    #expect(end.errors.split(separator: "\n").count == 1)
  }

  @Test(arguments: [SIGINT, SIGTERM])
  func `it prints rates when asked, and ends cleanly with a summary`(_ signal: CInt) async throws {
    let program = try RunningProgram(["loopback:", "loopback:", "--queues", "2", "--rates", "1"], program: "Forwarder")
    try await program.waitForOutput("loopback queue 1: 0 packets/s in")
    let end = await program.end(with: signal)
    #expect(end.status == 0, "\(end)")
    #expect(end.output.contains("queue pairs: 2 and 2"))
    #expect(end.output.contains("loopback -> loopback: 0 frames; dropped: 0 too long, 0 received too long, "))
    #expect(end.complaints.isEmpty, "\(end.errors)")
  }
}
