import LibeventConcurrency
import NetdevTesting
import TestSupport
import Testing

@testable import VirtioDevice

/// How long a port leaves a descriptor alone that was ready for nothing, or refused: by the loop's clock, which is the test's.
@Suite struct ReadinessTests {
  /// The pauses, in milliseconds, that `body` makes a readiness take.
  private func pauses(_ body: (ReadReadiness) -> Void) throws -> [UInt64] {
    let backend = StillBackend()
    let hand = HandTurnedLoop(backend: backend)
    let requests = UnsafeMutablePointer<EngineRequests>.allocate(capacity: 1)
    defer { unsafe requests.deallocate() }
    let bell = unsafe ServiceBell(loop: hand.loop, requests: requests)
    bell.disconnect()
    let readiness = try ReadReadiness(descriptor: 0, bell: bell)
    body(readiness)
    readiness.cancel()
    return backend.delays.map { $0 / 1_000_000 }
  }

  @Test func `what anybody can send, and turns out wrong when it is read, makes pauses of 32 ms at most`() throws {
    let pauses = try pauses { readiness in for _ in 0..<200 { readiness.ranDry() } }
    #expect(pauses.count == 200 - 16)
    #expect(pauses.prefix(6) == [1, 2, 4, 8, 16, 32])
    #expect(pauses.max() == 32)
  }

  @Test func `pauses after refusals go up to a second, and begin anew after a read that went well`() throws {
    let pauses = try pauses { readiness in
      for _ in 0..<15 { #expect(readiness.refused(passes: true)) }
      readiness.succeeded()
      #expect(readiness.refused(passes: true))
    }
    #expect(pauses.max() == 1024)
    #expect(pauses.last == 1)
  }
}
