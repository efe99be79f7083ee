import CNetdevSystem
import CTestSupport
import Glibc
import PacketFormats
import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// A UDP client of this machine.
final class Client {
  let descriptor: CInt

  init(port: UInt16) throws {
    descriptor = test_udp_client(port, 2000)
    try #require(descriptor >= 0)
  }

  /// One that has an address and hears only what comes from the one it asks.
  init(_ own: String, asking address: String, port: UInt16) throws {
    descriptor = unsafe test_udp_client_between(own, address, port, 2000)
    try #require(descriptor >= 0)
  }

  deinit { close(descriptor) }

  func send(_ bytes: [UInt8]) { #expect(unsafe Glibc.send(descriptor, bytes, bytes.count, 0) == bytes.count) }

  /// The next datagram, waited for up to two seconds; nil when none came.
  func receive() -> [UInt8]? {
    var room = [UInt8](repeating: 0, count: 2000)
    let count = unsafe recv(descriptor, &room, room.count, 0)
    return count < 0 ? nil : Array(room.prefix(count))
  }

  /// Whether there is a datagram already.
  var isSilent: Bool { test_wait_readable(descriptor, 20) == 0 }
}

/// The simplest driver there is: gives back every frame with its addresses and ports exchanged.
final class EchoDriver {
  let rig: Rig
  private var buffers: [UInt32: Rig.Buffer] = [:]
  private(set) var echoed = 0

  init(
    _ backend: HostUDPBackend, buffers count: Int = 32,
    configuration: VirtioNetDevice.Configuration = VirtioNetDevice.Configuration()
  ) throws {
    rig = try Rig(backend: backend, configuration: configuration)
    for _ in 0..<count { offer() }
    rig.serve()
  }

  private func offer() {
    let buffer = rig.offerReceive([1526])
    buffers[UInt32(buffer.head)] = buffer
  }

  /// Echoes what has been received so far.
  func turn() {
    while let used = rig.receive.takeUsed() {
      guard let buffer = buffers[used.id] else { return }
      var frame = Array(rig.contents(buffer, Int(used.written)).dropFirst(12))
      let old = frame
      frame.replaceSubrange(0..<12, with: old[6..<12] + old[0..<6])
      frame.replaceSubrange(26..<34, with: old[30..<34] + old[26..<30])
      frame.replaceSubrange(34..<38, with: old[36..<38] + old[34..<36])
      rig.offerTransmit(frame: frame)
      offer()
      echoed += 1
    }
    rig.serve()
    while rig.transmit.takeUsed() != nil {}
  }
}

@Suite(.serialized, .timeLimit(.minutes(1))) struct HostUDPTests {
  @Test func `10 000 datagrams of 0 to 1472 bytes from four senders come back to their senders, unchanged`() throws {
    let backend = try HostUDPBackend()
    let driver = try EchoDriver(backend)
    let clients = try (0..<4).map { _ in try Client(port: backend.port) }
    var sent = 0
    while sent < 10_000 {
      var wanted: [[UInt8]] = []
      for index in 0..<16 {
        wanted.append(pattern((sent + index) % 1473, seed: sent))
        clients[index % 4].send(wanted[index])
      }
      sent += 16
      #expect(
        driver.rig.hand.wait {
          driver.turn(); return driver.echoed >= sent
        })
      for index in 0..<16 { expectSame(clients[index % 4].receive() ?? [1], wanted[index]) }
    }
    #expect(driver.rig.engine.statistics.drops.total == 0)
    #expect(driver.rig.engine.statistics.receivedFrames == UInt64(sent))
    #expect(driver.rig.engine.statistics.transmittedFrames == UInt64(sent))
  }

  @Test func `a datagram above 1472 bytes is dropped and counted, the next one is carried`() throws {
    let backend = try HostUDPBackend()
    let driver = try EchoDriver(backend)
    let client = try Client(port: backend.port)
    client.send(pattern(1473))
    client.send(pattern(1472))
    #expect(
      driver.rig.hand.wait {
        driver.turn(); return driver.echoed == 1
      })
    expectSame(client.receive() ?? [], pattern(1472))
    #expect(driver.rig.engine.statistics.drops[.tooLong] == 1)
  }

  @Test func `frames that answer no sender are dropped by reason and nothing is sent`() throws {
    let backend = try HostUDPBackend()
    let rig = try Rig(backend: backend)
    let client = try Client(port: backend.port)
    let buffer = rig.offerReceive([1526])
    rig.serve()
    client.send([1, 2, 3])
    #expect(rig.hand.wait { rig.receive.usedCount == 1 })
    let frame = Array(rig.contents(buffer, 57).dropFirst(12))
    let flow = try unsafe UDPFrame.decode(frame.span.bytes).flow
    #expect(flow.source == IPv4Address(10, 64, 0, 1))
    #expect(flow.destination == IPv4Address(10, 0, 2, 15))
    #expect(flow.destinationPort == backend.port)
    func answer(_ change: (inout UDPFrame) -> Void) throws {
      var answer = flow.reversed
      change(&answer)
      var bytes = [UInt8](repeating: 0, count: 45)
      var span = bytes.mutableSpan
      var raw = unsafe span.mutableBytes
      _ = try answer.encode(into: &raw, payloadLength: 3)
      rig.offerTransmit(frame: bytes)
      rig.serve()
    }
    try answer { $0.destinationPort &+= 1 }
    try answer { $0.destination = IPv4Address(10, 64, 0, 2) }
    try answer { $0.sourcePort &+= 1 }
    rig.offerTransmit(frame: pattern(60))
    rig.offerTransmit(frame: pattern(1600))
    rig.offerTransmit(header: [1] + [UInt8](repeating: 0, count: 11), frame: frame)
    rig.serve()
    #expect(client.isSilent)
    let drops = rig.engine.statistics.drops
    #expect(drops[.unknownPeer] == 2)
    #expect(drops[.notForUs] == 2)
    #expect(drops[.tooLong] == 1)
    #expect(drops[.offloadNotNegotiated] == 1)
    #expect(rig.transmit.usedCount == 6)
    try answer { _ in }
    #expect(client.receive() == [0, 0, 0])
  }

  @Test func `without receive buffers datagrams wait in the socket, the loop sleeps, and a kick is asked for`() throws {
    let backend = try HostUDPBackend()
    let rig = try Rig(backend: backend)
    let client = try Client(port: backend.port)
    rig.serve()
    for index in 0..<3 { client.send([UInt8(index)]) }
    usleep(10_000)
    for _ in 0..<20 { rig.hand.poll() }
    let services = rig.engine.statistics.services
    for _ in 0..<20 { rig.hand.poll() }
    #expect(rig.engine.statistics.services == services)
    for index in 0..<3 {
      let buffer = rig.offerReceive([1526])
      #expect(rig.wantsReceiveKick)
      rig.engine.kickReceive()
      rig.hand.settle()
      #expect(rig.receive.takeUsed()?.written == 55)
      #expect(rig.contents(buffer, 55).last == UInt8(index))
    }
    #expect(rig.engine.statistics.drops.total == 0)
  }

  @Test func `the gateway answers ARP on the wire`() throws {
    let rig = try Rig(backend: try HostUDPBackend())
    let buffer = rig.offerReceive([1526])
    var bytes = [UInt8](repeating: 0, count: 42)
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    let mac = rig.device.macAddress
    try EthernetHeader(destination: .broadcast, source: mac, etherType: .arp).encode(into: &raw)
    try ARPPacket(
      operation: .request, senderHardwareAddress: mac, senderProtocolAddress: IPv4Address(10, 0, 2, 15),
      targetHardwareAddress: .zero, targetProtocolAddress: IPv4Address(10, 0, 2, 2)
    ).encode(into: &raw, at: EthernetHeader.length)
    rig.offerTransmit(frame: bytes)
    rig.serve()
    #expect(rig.receive.takeUsed()?.written == 54)
    let reply = Array(rig.contents(buffer, 54).dropFirst(12))
    let packet = try unsafe ARPPacket(decoding: reply.span.bytes, at: EthernetHeader.length)
    #expect(packet.operation == .reply)
    #expect(packet.senderProtocolAddress == IPv4Address(10, 0, 2, 2))
    #expect(packet.senderHardwareAddress.isLocallyAdministered)
  }

  @Test func `what cannot be opened is refused with the reason`() throws {
    func refusal(_ address: String, _ port: UInt16) -> BackendError.Code? {
      do throws(BackendError) {
        _ = try HostUDPBackend(address: address, port: port)
        return nil
      } catch {
        return error.code
      }
    }
    let holder = try HostUDPBackend()
    #expect(refusal("127.0.0.1", holder.port) == .inUse)
    #expect(refusal("192.0.2.1", 0) == .invalidConfiguration)
    #expect(refusal("localhost", 0) == .invalidConfiguration)
    #expect(refusal("127.0.0.1", 0) == nil)
    var overlapping = HostUDPBackend.Configuration()
    overlapping.senders = IPv4Address(10, 0, 0, 0)
    #expect(throws: BackendError.self) { _ = try HostUDPBackend(configuration: overlapping) }
    var none = HostUDPBackend.Configuration()
    none.maximumSenders = 0
    #expect(throws: BackendError.self) { _ = try HostUDPBackend(configuration: none) }
    withExtendedLifetime(holder) {}
  }

  @Test func `the socket closes with its last holder, and its port is free again`() throws {
    let port: UInt16
    do {
      let backend = try HostUDPBackend()
      port = backend.port
      let rig = try Rig(backend: backend)
      backend.close()
      // The port that the engine serves still holds it.
      #expect(throws: BackendError.self) { _ = try HostUDPBackend(port: port) }
      withExtendedLifetime(rig) {}
    }
    _ = try HostUDPBackend(port: port)
  }
}
