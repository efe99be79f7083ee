import Netdev
import TestSupport
import Testing

@testable import VhostUser

/// A back-end's number of queue pairs is a claim: DPDK says 128 whatever it serves.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct ServiceTests {
  @Test func `a pair that the back-end does not serve is a typed error, and no hang`() async throws {
    let backend = ScriptedBackend()
    var opening = Opening(backend)
    opening.configuration.queuePairs = 2
    opening.options.serviceTimeout = .milliseconds(50)
    let device = try await opening.open()
    let queue = device.queues[1]
    let error = await #expect(throws: NetworkDeviceError.self) {
      try await queue.send(Packet(copying: [UInt8](repeating: 0, count: 60), in: queue.pool))
    }
    #expect(error?.code == .unsupported)
    #expect(error?.offered.contains("queue pair 1 is not served") == true, "\(String(describing: error))")
    try? await device.close()
  }

  @Test func `a ring whose back-end reports an error breaks its queue`() async throws {
    let backend = ScriptedBackend()
    let device = try await Opening(backend).open()
    backend.reportError()
    let error = await #expect(throws: NetworkDeviceError.self) { try await device.queues[0].closed() }
    #expect(error?.code == .broken)
    #expect(error?.offered.contains("reports an error on queue pair 0") == true, "\(String(describing: error))")
    try? await device.close()
  }

  @Test func `the first pair is there by definition and may be served later`() async throws {
    let backend = ScriptedBackend()
    var opening = Opening(backend)
    opening.configuration.queuePairs = 2
    opening.options.serviceTimeout = .milliseconds(10)
    // Its end is confirmed, however busy the machine is.
    opening.configuration.resetTimeout = .seconds(20)
    let device = try await opening.open()
    let queue = device.queues[0]
    let send = Task { try await queue.send(Packet(copying: [UInt8](repeating: 0, count: 60), in: queue.pool)) }
    try await eventually("it is published") { queue.statistics.packetsSubmitted == 1 }
    // Twenty times the time-out: not a measurement, a chance to be wrong.
    try await Task.sleep(for: .milliseconds(200))
    #expect(queue.statistics.packetsFailed == 0)
    try await device.close()
    let error = await #expect(throws: NetworkDeviceError.self) { try await send.value }
    #expect(error?.code == .closed)
  }
}
