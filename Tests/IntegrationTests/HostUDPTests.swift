import Glibc
import LibeventConcurrency
import Netdev
import NetdevDevices
import Synchronization
import TestSupport
import Testing

/// The device that needs no rights, against sockets of this host.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct HostUDPTests {
  @Test(arguments: ["inline", "own"])
  func `10 000 datagrams of 0 to 1472 bytes with a window of 16 come back unchanged`(_ placement: String) async throws {
    let port = UInt16.random(in: 20_000...30_000)
    let device = try await NetworkDevice.open("host-udp:127.0.0.1:\(port)?placement=\(placement)")
    let server = try echo(on: device, address: "10.0.2.15/24")
    let exchange = try await hostExchange(port: port, total: 10_000, sizes: 0...1472)
    #expect(exchange.isComplete, "\(exchange)")
    try await device.close()
    try? await server.value
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `many senders at once each get their own answers`() async throws {
    let port = UInt16.random(in: 30_001...40_000)
    let device = try await NetworkDevice.open("host-udp:127.0.0.1:\(port)")
    let server = try echo(on: device, address: "10.0.2.15/24")
    let exchange = try await hostExchange(port: port, flows: 100, window: 2, total: 20_000, sizes: 0...512)
    #expect(exchange.isComplete, "\(exchange)")
    try await device.close()
    try? await server.value
  }

  @Test func `a port that is taken is refused with an error that says so`() async throws {
    let port = UInt16.random(in: 40_001...50_000)
    let device = try await NetworkDevice.open("host-udp:127.0.0.1:\(port)")
    await #expect { _ = try await NetworkDevice.open("host-udp:127.0.0.1:\(port)") } throws: { error in
      (error as? NetworkDeviceError)?.code == .busy
    }
    try await device.close()
    // And it is free again afterwards.
    try await NetworkDevice.open("host-udp:127.0.0.1:\(port)").close()
  }

  @Test(arguments: ["host-udp:127.0.0.1:0", "loopback:"])
  func `a device that does not block opens and closes while calls of others do`(_ url: String) async throws {
    final class Calls: Sendable {
      let areHeld = Atomic(true)
      let number = Atomic(0)
    }
    let calls = Calls()
    for _ in 0..<64 {
      BlockingCalls.start {
        calls.number.add(1, ordering: .relaxed)
        while calls.areHeld.load(ordering: .relaxed) { usleep(1000) }
        calls.number.subtract(1, ordering: .relaxed)
      }
    }
    defer { calls.areHeld.store(false, ordering: .relaxed) }
    try await eventually("all threads are held") { calls.number.load(ordering: .relaxed) == 32 }
    let due = BlockingCalls.due
    try await NetworkDevice.open(url).close()
    // Close would wait for a call of its own as long as its time allows, and then go on.
    #expect(BlockingCalls.due == due)
    #expect(calls.number.load(ordering: .relaxed) > 0)
  }
}
