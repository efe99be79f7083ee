import Netdev
import NetdevTesting
import PacketFormats
import Responder
import TestSupport
import Testing

@testable import StoreService

/// What the store says, without a device.
@Suite struct StoreTests {
  @Test func `it keeps, gives back, replaces and forgets`() {
    var store = Store()
    func ask(_ request: String) -> String { String(decoding: store.answer(Array(request.utf8).raw), as: UTF8.self) }
    #expect(ask("get color") == "error: no such key")
    #expect(ask("set color blue and green") == "ok")
    #expect(ask("get color") == "blue and green")
    #expect(ask("set color red") == "ok" && ask("get color") == "red")
    #expect(ask("delete color") == "ok" && ask("delete color") == "error: no such key")
    for nonsense in ["", " ", "get", "get a b", "set a", "set", "nonsense"] {
      #expect(ask(nonsense).hasPrefix("error"))
    }
    #expect(ask("set a " + String(repeating: "x", count: Store.limit)) == "error: too long")
    #expect(store.count == 0)
  }

  @Test func `strangers cannot make it grow without end`() {
    var store = Store()
    for key in 0..<Store.capacity { #expect(store.answer(Array("set \(key) x".utf8).raw) == Array("ok".utf8)) }
    #expect(store.answer(Array("set another x".utf8).raw) == Array("error: full".utf8))
    #expect(store.answer(Array("set 7 y".utf8).raw) == Array("ok".utf8))
  }
}

/// The store on a queue.
@Suite(.timeLimit(.minutes(2))) struct KeyValueStoreTests {
  private static let own = MACAddress(2, 0, 0, 0, 0, 1)

  @Test func `questions are answered, those of others and broken ones are not`() async throws {
    let pool = try PacketPool(.init(slots: 32, hugePages: false))
    let network = try #require(IPv4Network("10.0.0.2/24"))
    let responder = try Responder(macAddress: Self.own, addresses: [network], ipv6Addresses: nil, udpEcho: .none)
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let server = Task { try await device.run { try await serve($0, responder, at: 7000) } }
    func question(_ text: String, to address: IPv4Address = IPv4Address(10, 0, 0, 2), port: UInt16 = 7000) throws
      -> Packet
    {
      try UDPFrame(
        sourceMAC: MACAddress(2, 0, 0, 0, 0, 9), destinationMAC: Self.own, source: IPv4Address(10, 0, 0, 9),
        destination: address, sourcePort: 5000, destinationPort: port
      ).makePacket(payload: Array(text.utf8), in: pool)
    }
    await driver.deliver(try question("set color blue", to: IPv4Address(10, 0, 0, 3)))
    await driver.deliver(try question("set color blue", port: 7001))
    var broken = try question("set color red")
    try broken.storeUInt8(0, at: 45)
    await driver.deliver(broken)
    for (text, expected) in [("get color", "error: no such key"), ("set color blue", "ok"), ("get color", "blue")] {
      await driver.deliver(try question(text))
      let answer = try await driver.nextSent()
      let (flow, payload) = try UDPFrame.decode(answer.raw)
      #expect(flow.destinationPort == 5000 && flow.source == network.address)
      #expect(String(decoding: answer[payload], as: UTF8.self) == expected)
    }
    server.cancel()
    await #expect(throws: CancellationError.self) { try await server.value }
    #expect(device.pool.copies == 0 && device.pool.free == device.pool.configuration.slots)
  }
}
