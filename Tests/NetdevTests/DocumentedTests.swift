import Netdev
import NetdevTesting
import Testing

private func echo(_ queue: isolated NetworkQueue) async throws {
  for await packet in queue.packets { try await queue.send(packet) }
}

/// The example of the page about testing packet code.
@Suite(.timeLimit(.minutes(1))) struct DocumentedTests {
  @Test func `a frame comes back as it was`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let server = Task { try await device.run(echo) }
    let frame = [UInt8](0..<64)
    #expect(await driver.deliver(frame))
    #expect(try await driver.nextSent() == frame)
    server.cancel()
    _ = await server.result
  }
}
