import CNetdevSystem
import Foundation
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import Testing

/// The world's kernel: TAP interfaces and UDP ports that are there for the world alone.
@Suite struct KernelTests {
  @Test(arguments: [1, 2]) func `frames pass through a TAP interface both ways`(queues: Int) async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in try await passThroughTap(world, queues) }
    }
  }

  @Test func `packets pass through a TUN interface, and no frames`() async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let interface = try #require(world.makeInterface("tun0", isLayer3: true))
        await #expect(throws: NetworkDeviceError.self) { _ = try await world.open("tap:tun0") }
        let device = try await world.open("tun:tun0")
        // Of the link's two stations this is the other one.
        let router: [UInt8] = [0x02, 0x00, 0x5e, 0x00, 0x00, 0x01]
        let packet = [0x45] + [UInt8](repeating: 7, count: 40)
        try await device.run { queue in
          #expect(interface.send(packet))
          var packets = queue.packets.makeAsyncIterator()
          let frame = [UInt8](try #require(await packets.next()))
          #expect(Array(frame[6..<14]) == router + [0x08, 0x00] && Array(frame[14...]) == packet)
          try await queue.send(try Packet(copying: router + frame[0..<6] + frame[12...], in: queue.pool))
        }
        #expect(interface.take() == packet && interface.take() == nil)
      }
    }
  }

  @Test func `an interface goes down and up, and is deleted`() async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let interface = try #require(world.makeInterface("tap0"))
        #expect(world.makeInterface("tap0") == nil)
        let device = try await world.open("tap:tap0")
        interface.setUp(false)
        while device.isLinkUp { try await Task.sleep(for: .milliseconds(1)) }
        #expect(!interface.send(frame(1)))
        interface.setUp(true)
        while !device.isLinkUp { try await Task.sleep(for: .milliseconds(1)) }
        #expect(interface.send(frame(1)))
        interface.delete()
        await #expect(throws: NetworkDeviceError.self) {
          try await device.run { queue in for await _ in queue.packets {} }
        }
      }
    }
  }

  @Test func `datagrams reach a port's device, and nobody's port takes none`() async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let port = world.port(7007)
        #expect(!port.send([1], from: 5000))
        let device = try await world.open("host-udp:127.0.0.1:7007")
        #expect(port.send([1, 2, 3], from: 5000))
        var packets = device.queues[0].packets.makeAsyncIterator()
        let packet = try #require(await packets.next())
        // Ethernet, IPv4 and UDP headers before it.
        #expect(packet.withBytes { bytes in unsafe bytes.unsafeLoad(fromByteOffset: 44, as: UInt8.self) } == 3)
        try await device.close()
      }
    }
  }

  @Test func `an interface's kernel knows its MTU and whether it is up`() async throws {
    try await Simulation(seed: 1).run { world in
      let interface = try #require(world.makeInterface("tap0", mtu: 9000))
      let watch = netdev_link_watch()
      defer { netdev_close(watch) }
      var link = netdev_link()
      for (mtu, isUp) in [(9000, true), (1400, true), (1400, false), (68, true)] {
        interface.setMTU(mtu)
        interface.setUp(isUp)
        #expect(unsafe netdev_link_look(watch, "tap0", &link) == 0)
        #expect(Int(link.mtu) == mtu && link.is_up == isUp)
      }
    }
  }

  @Test func `an interface takes no more frames than it has room for`() async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let interface = try #require(world.makeInterface("tap0"))
        interface.setRoom(2)
        let device = try await world.open("tap:tap0")
        let queue = device.queues[0]
        let sender = Task.detached {
          for number in 0..<5 as Range<UInt8> {
            try await queue.submit(try Packet(copying: frame(number), in: queue.pool))
          }
        }
        for expected in [0..<2, 2..<4, 4..<5] as [Range<UInt8>] {
          try await Task.sleep(for: .milliseconds(100))
          var taken: [UInt8] = []
          while let frame = interface.take() { taken.append(frame[14]) }
          #expect(taken == Array(expected))
        }
        try await sender.value
        try await device.close()
      }
    }
  }

  @Test func `an interface that is down takes no frame`() async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let interface = try #require(world.makeInterface("tap0"))
        let device = try await world.open("tap:tap0")
        interface.setUp(false)
        while device.isLinkUp { try await Task.sleep(for: .milliseconds(1)) }
        try await device.queues[0].submit(try Packet(copying: frame(1), in: device.pool))
        try await Task.sleep(for: .milliseconds(100))
        #expect(interface.take() == nil)
        try await device.close()
      }
    }
  }

  /// A datagram that is cut to what its reader has room for says so: it is not the one that was sent.
  @Test func `a datagram that is too long for the device does not reach it`() async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let port = world.port(7007)
        let device = try await world.open("host-udp:127.0.0.1:7007")
        #expect(port.send([UInt8](repeating: 9, count: 60_000), from: 5000))
        #expect(port.send([1, 2, 3], from: 5000))
        var packets = device.queues[0].packets.makeAsyncIterator()
        let packet = try #require(await packets.next())
        #expect(packet.withBytes { bytes in unsafe bytes.unsafeLoad(fromByteOffset: 44, as: UInt8.self) } == 3)
        try await device.close()
      }
    }
  }

  @Test func `outside of worlds the kernel is the machine's`() async throws {
    try await Simulation(seed: 1).run { world in
      _ = world.makeInterface("tap0")
      let descriptor = StrangerDescriptor()
      StrangerThread { descriptor.value = netdev_link_watch() }.join()
      // A netlink socket of the machine, or a refusal of it, but none of the world's, which tell of tap0.
      var link = netdev_link()
      if descriptor.value >= 0 {
        let found = unsafe netdev_link_look(descriptor.value, "lo", &link)
        #expect(found == 0)
        netdev_close(descriptor.value)
      }
    }
  }
}

private final class StrangerDescriptor: @unchecked Sendable {
  // Proof: written by a thread that is joined before it is read.
  var value: CInt = -1
}

/// A frame to all stations.
func frame(_ number: UInt8) -> [UInt8] {
  [UInt8](repeating: 0xff, count: 6) + [2, 0, 0, 0, 0, 1, 0x88, 0xb5] + [UInt8](repeating: number, count: 46)
}

private func passThroughTap(_ world: SimulatedWorld, _ queues: Int) async throws {
  let interface = try #require(world.makeInterface("tap0", isMultiQueue: queues > 1))
  let device = try await world.open("tap:tap0?queues=\(queues)")
  #expect(interface.queues == queues)
  try await device.run { queue in
    for number in 0..<5 as Range<UInt8> {
      #expect(interface.send(frame(number), queue: queue.index))
      try await queue.send(try Packet(copying: frame(100 + number), in: queue.pool))
    }
    var next: UInt8 = 0
    for await packet in queue.packets {
      #expect(packet.withBytes { bytes in unsafe bytes.unsafeLoad(fromByteOffset: 14, as: UInt8.self) } == next)
      next += 1
      if next == 5 { break }
    }
  }
  var taken: [UInt8] = []
  while let frame = interface.take() { taken.append(frame[14]) }
  #expect(taken.sorted() == (0..<5).flatMap { [UInt8](repeating: 100 + $0, count: queues) })
}

/// What a program asks of the kernel that a world has not.
@Suite struct LackTests {
  private struct Asked: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let ask: @Sendable (SimulatedWorld) async throws -> Void
  }

  private static func socket(_ domain: CInt, _ type: __socket_type) -> CInt {
    Glibc.socket(domain, CInt(type.rawValue), 0)
  }

  private static let asked: [Asked] = [
    Asked(testDescription: "packet sockets: there is no device packet:") { world in
      do { _ = try await world.open("packet:lo") } catch {}
    },
    Asked(testDescription: "sockets of IPv4 but those of UDP") { _ in _ = socket(AF_INET, SOCK_STREAM) },
    Asked(testDescription: "sockets of IPv6") { _ in _ = socket(AF_INET6, SOCK_DGRAM) },
    Asked(testDescription: "sendto of a socket") { _ in
      let own = socket(AF_INET, SOCK_DGRAM)
      _ = unsafe sendto(own, "hi", 2, 0, nil, 0)
      close(own)
    },
    Asked(testDescription: "listen of a socket") { _ in
      let own = socket(AF_INET, SOCK_DGRAM)
      _ = listen(own, 1)
      close(own)
    },
    Asked(testDescription: "writev of a socket") { _ in
      let own = socket(AF_INET, SOCK_DGRAM)
      _ = unsafe write(own, "12345678", 8)
      close(own)
    },
  ]

  @Test(arguments: asked) private func `is said in words`(_ asked: Asked) async {
    let report = await Simulation(seed: 1).observe(asked.ask)
    #expect(report.findings.first?.hasPrefix("a world has no \(asked.testDescription)") == true, "\(report)")
  }
}
