import Foundation
import Glibc
import TestSupport
import Testing

/// A pipe that is full and that nobody reads.
private final class FullPipe {
  let writeEnd: CInt
  private let readEnd: CInt

  init() throws {
    var ends: [CInt] = [-1, -1]
    try #require(unsafe pipe(&ends) == 0)
    (readEnd, writeEnd) = (ends[0], ends[1])
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    // Filled without waiting, and then as a program expects it.
    let flags = fcntl(writeEnd, F_GETFL)
    _ = fcntl(writeEnd, F_SETFL, flags | O_NONBLOCK)
    let block = [UInt8](repeating: 0x2E, count: 4096)
    for size in [4096, 1] { while unsafe write(writeEnd, block, size) > 0 {} }
    _ = fcntl(writeEnd, F_SETFL, flags)
  }

  deinit {
    close(readEnd)
    close(writeEnd)
  }
}

/// How the programs begin and end where not everything is as it should be.
@Suite(.serialized, .timeLimit(.minutes(5))) struct EndingTests {
  /// A program that is serving and whose output nobody reads.
  private func startMute(_ pipe: FullPipe) async throws -> RunningProgram {
    let port = UInt16.random(in: 50_001...60_000)
    let server = try RunningProgram(
      command: [RunningProgram.path.path, "host-udp:127.0.0.1:\(port)", "--rates"], standardOutput: pipe.writeEnd)
    // It cannot say when it is there. Once it is, it echoes, whatever its output does.
    try await eventually("it echoes") {
      (try? await hostExchange(port: port, window: 1, total: 1, sizes: 16...16))?.isComplete == true
    }
    let exchange = try await hostExchange(port: port, total: 1000, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    // A line of rates is due every second, and stuck.
    try await Task.sleep(for: .seconds(2))
    return server
  }

  @Test(arguments: [SIGINT, SIGTERM]) func `a program whose output pipe is full ends when it is asked to`(
    _ signal: CInt
  ) async throws {
    let pipe = try FullPipe()
    let server = try await startMute(pipe)
    #expect(await server.end(with: signal).status == 0)
    withExtendedLifetime(pipe) {}
  }

  @Test func `the second signal ends a program at once`() async throws {
    let pipe = try FullPipe()
    let server = try await startMute(pipe)
    // The first one leads to a second's wait for the output.
    kill(server.identifier, SIGINT)
    try await Task.sleep(for: .milliseconds(200))
    let end = await server.end(with: SIGTERM)
    #expect(end.status == -1, "ended by the signal: \(end)")
    withExtendedLifetime(pipe) {}
  }

  @Test(arguments: [("EchoServer", ["--address", "10.9.9.2/24"]), ("Forwarder", ["loopback:"])])
  func `a program that still waits for its peer ends when it is asked to, and leaves no socket`(
    _ program: String, _ others: [String]
  ) async throws {
    let path = "/tmp/netdev-ending-\(getpid())-\(program).sock"
    let server = try RunningProgram(["vhost-user:\(path)?server=1&connect_timeout=600"] + others, program: program)
    try await eventually("it listens") { FileManager.default.fileExists(atPath: path) }
    let end = await server.end(with: SIGTERM)
    #expect(end.status == 0, "\(end)")
    // That it waits is in the log; the program itself has nothing to say.
    #expect(end.lines(of: program).isEmpty, "\(end)")
    #expect(!FileManager.default.fileExists(atPath: path))
    unsafe unlink(path)
  }

  @Test func `however few descriptors a program may have, it serves and ends when asked, or says what is missing`()
    async throws
  {
    var ends: [Int: CInt] = [:]
    for limit in 8...40 {
      let script = "ulimit -n \(limit); exec \(RunningProgram.path.path) loopback: --address 10.9.9.2/24"
      let server = try RunningProgram(command: ["sh", "-c", script])
      try await eventually("it serves, or has said why not") {
        server.printed.contains("try:") || !server.complained.isEmpty
      }
      let end = await server.end(with: server.printed.contains("try:") ? SIGTERM : nil)
      // -1 is a signal's end: libdispatch ends the process when it cannot have a descriptor.
      #expect([0, EX_OSERR].contains(end.status), "with \(limit): \(end)")
      if end.status == EX_OSERR {
        #expect(end.lines(of: "EchoServer").count == 1, "with \(limit): \(end)")
        #expect(end.errors.contains("ulimit -n") || end.errors.contains("EMFILE"), "with \(limit): \(end)")
      }
      ends[limit] = end.status
    }
    #expect(ends[8] == EX_OSERR)
    #expect(ends[40] == 0)
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root, to hide /proc"), arguments: ["EchoServer", "Forwarder"])
  func `a program that does not see its arguments refuses to start`(_ program: String) async throws {
    let path = RunningProgram.url(of: program).path
    let script = "mount -t tmpfs none /proc && exec \(path) tap:tap0 tap:tap1"
    let end = await (try RunningProgram(command: ["unshare", "-mn", "sh", "-c", script])).end(with: nil)
    #expect(end.status == EX_OSFILE, "\(end)")
    #expect(end.lines(of: program).count == 1)
    #expect(end.errors.contains("/proc"), "\(end)")
    #expect(end.output.isEmpty)
  }

  @Test(.enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
  func `with descriptors 0, 1 and 2 closed at the start, what is printed lands in nothing of ours`() async throws {
    let namespace = NamespaceThread()
    try await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    let path = RunningProgram.path.path
    let server = try await namespace.run {
      try RunningProgram(
        command: ["sh", "-c", "exec \(path) tap:tap0 --address 10.9.0.2/24 --rates 0<&- 1>&- 2>&-"])
    }
    try await namespace.shell(
      "for i in $(seq 600); do ip link show tap0 2>/dev/null | grep -q LOWER_UP && exit 0; sleep 0.1; done; exit 1")
    try await namespace.shell("ip addr add 10.9.0.1/24 dev tap0 && ping -q -c 20 -i 0.1 -W 5 10.9.0.2 > /dev/null")
    for number in 0..<3 {
      let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(server.identifier)/fd/\(number)")
      #expect(target?.contains("/dev/net/tun") != true, "descriptor \(number): \(target ?? "")")
      #expect(target?.contains("memfd") != true, "descriptor \(number): \(target ?? "")")
      #expect(target?.contains("socket:") != true, "descriptor \(number): \(target ?? "")")
    }
    #expect(await server.end(with: SIGTERM).status == 0)
  }
}
