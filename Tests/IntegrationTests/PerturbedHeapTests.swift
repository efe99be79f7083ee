import Glibc
import Testing

/// Programs whose heap is filled with rubbish as soon as it is freed, and from which nothing is kept in a thread's cache: who
/// uses what has been freed, at the end of a device or of a loop, ends by a signal.
@Suite(.timeLimit(.minutes(5))) struct PerturbedHeapTests {
  private static let environment = [
    "env", "GLIBC_TUNABLES=glibc.malloc.tcache_count=0", "MALLOC_PERTURB_=85",
  ]

  @Test func `a program opens, uses and closes a device, and nothing that was freed is used`() async throws {
    let end = await (try RunningProgram([], before: Self.environment, program: "TopLevelProgram")).end(with: nil)
    #expect(end.status == 0, "\(end.output)\(end.errors)")
  }

  @Test func `a server that ends by a signal of its user uses nothing that was freed`() async throws {
    for _ in 0..<5 {
      let port = Int.random(in: 50_001...60_000)
      let server = try RunningProgram(["host-udp:127.0.0.1:\(port)"], before: Self.environment)
      try await server.waitForOutput("try:")
      let end = await server.end(with: SIGTERM)
      #expect(end.status == 0, "\(end.output)\(end.errors)")
    }
  }
}
