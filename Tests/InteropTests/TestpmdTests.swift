import ChildProcesses
import Foundation
import NetdevDevices
import TestSupport
import Testing

/// Our driver on ports of DPDK's testpmd: every frame is checked byte for byte, and none may be missing.
@Suite(.serialized, .timeLimit(.minutes(10)), .enabled(if: Testpmd.isAvailable, Testpmd.requirement))
struct TestpmdTests {
  /// Who listens, and how many queue pairs the port has.
  struct Setting: Sendable, CustomTestStringConvertible {
    var queues: Int
    var isServer: Bool
    var testDescription: String { "\(queues) queue pairs, \(isServer ? "we listen" : "we connect")" }

    func url(_ socket: String, _ options: String) -> String {
      "vhost-user:\(socket)?queues=\(queues)\(isServer ? "&server=1" : "")\(options)"
    }
  }

  @Test(arguments: [
    Setting(queues: 1, isServer: false), Setting(queues: 2, isServer: false), Setting(queues: 1, isServer: true),
    Setting(queues: 2, isServer: true),
  ])
  func `frames go both ways in bursts of 1 to 64, mergeable and not, on rings of 256 and 1024`(
    _ setting: Setting
  ) async throws {
    let socket = socketPath()
    let port = Testpmd.Port(socket: socket, queues: setting.queues, isClient: setting.isServer)
    let peer = try await Testpmd([port])
    for options in [
      "&queue_size=256", "&queue_size=1024", "&queue_size=256&mrg_rxbuf=0", "&queue_size=1024&mrg_rxbuf=0",
    ] {
      let device = try await open(setting.url(socket, options))
      #expect(device.queues.count == setting.queues)
      try await device.run { queue in
        for burst in [1, 2, 7, 32, 64] {
          try await exchange(on: queue, total: 64 + 3 * burst, burst: burst, isSwapped: true)
        }
      }
      let statistics = device.statistics
      for queue in statistics { #expect(queue.packetsReleased == queue.packetsSubmitted) }
      #expect(device.pool.free == device.pool.configuration.slots)
    }
    await peer.quit()
  }

  @Test(
    arguments: ["packed=0&in_order=0", "packed=0&in_order=1", "packed=1&in_order=0", "packed=1&in_order=1"],
    [Setting(queues: 2, isServer: false), Setting(queues: 2, isServer: true)])
  func `either ring format, in order and not, mergeable and not, in bursts, with frames in one and in many buffers`(
    _ rings: String, _ setting: Setting
  ) async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket, queues: setting.queues, isClient: setting.isServer)])
    let sizes = rings.hasPrefix("packed=1") ? ["256", "257", "1024"] : ["256", "1024"]
    // Who listens makes no difference to what the rings can do.
    let kinds =
      setting.isServer
      ? ["mrg_rxbuf=1"] : ["mrg_rxbuf=0", "mrg_rxbuf=1", "mrg_rxbuf=1&event_idx=0&indirect=0"]
    for options in sizes.flatMap({ size in kinds.map { "queue_size=\(size)&\($0)" } }) {
      let device = try await open(setting.url(socket, "&\(rings)&\(options)"))
      try await device.run { queue in
        for burst in [1, 2, 7, 32, 64] {
          try await exchange(on: queue, total: 64 + 3 * burst, burst: burst, isSwapped: true)
        }
        // More than a lap of every ring.
        try await exchange(on: queue, total: 3000, burst: 48, isSwapped: true)
      }
      for queue in device.statistics { #expect(queue.packetsReleased == queue.packetsSubmitted) }
      #expect(device.pool.free == device.pool.configuration.slots)
    }
    await peer.quit()
  }

  @Test(arguments: ["kicks=0", "event_idx=0", "indirect=0&mrg_rxbuf=0&event_idx=0", "mtu=1500"])
  func `frames go both ways whatever the keys say`(_ options: String) async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)])
    let device = try await open("vhost-user:\(socket)?\(options)")
    try await device.run { queue in
      for burst in [1, 64] { try await exchange(on: queue, total: 300, burst: burst, isSwapped: true) }
    }
    #expect(device.pool.free == device.pool.configuration.slots)
    await peer.quit()
  }

  @Test func `the peer negotiates what the URL's keys leave`() async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)])
    func negotiated(_ options: String) async throws -> UInt64 {
      let before = peer.process.output.count
      let device = try await open("vhost-user:\(socket)?\(options)")
      try await device.close()
      var rest: String {
        let text = peer.process.output.dropFirst(before)
        return text.components(separatedBy: "negotiated Virtio features: 0x").dropFirst().first ?? ""
      }
      // What it prints comes by a pipe.
      try await eventually("it says what was negotiated") { rest.contains { !$0.isHexDigit } }
      return try #require(UInt64(rest.prefix { $0.isHexDigit }, radix: 16))
    }
    let all = try await negotiated("queues=1")
    #expect(all & 1 << 15 != 0)
    #expect(all & 1 << 28 != 0)
    #expect(all & 1 << 29 != 0)
    #expect(all & 1 << 32 != 0)
    #expect(try await negotiated("mrg_rxbuf=0") == all & ~(1 << 15))
    #expect(try await negotiated("indirect=0") == all & ~(1 << 28))
    #expect(try await negotiated("event_idx=0") == all & ~(1 << 29))
    #expect(try await negotiated("mtu=1400") == all | 1 << 3)
    #expect(try await negotiated("packed=1") == all | 1 << 34)
    #expect(try await negotiated("in_order=1") == all | 1 << 35)
    await peer.quit()
  }

  @Test func `a pair that testpmd claims and does not serve is a typed error`() async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket, queues: 1)])
    let device = try await open("vhost-user:\(socket)?queues=2&serve_timeout=1")
    let error = await #expect(throws: NetworkDeviceError.self) {
      try await device.run { queue in
        if queue.index == 0 {
          try await exchange(on: queue, total: 100, burst: 10, isSwapped: true)
        } else {
          try await queue.send(Packet(copying: Frames.bytes(0, count: 60), in: queue.pool))
        }
      }
    }
    #expect(error?.offered.contains("queue pair 1 is not served") == true, "\(String(describing: error))")
    await peer.quit()
  }

  @Test func `testpmd receives what is sent and we receive what it makes`() async throws {
    let socket = socketPath()
    let sink = try await Testpmd([.init(socket: socket)], mode: .rxonly)
    let device = try await open("vhost-user:\(socket)")
    try await device.run { queue in
      for number in 0..<5000 { try await queue.send(Packet(copying: Frames.bytes(number, count: 60), in: queue.pool)) }
    }
    let all = Testpmd.Counters(received: 5000, sent: 0)
    #expect(try await sink.counters(port: 0, reaching: all) == all)
    await sink.quit()

    let source = try await Testpmd([.init(socket: socket)], mode: .txonly)
    let second = try await open("vhost-user:\(socket)")
    try await second.run { queue in
      var count = 0
      for await packet in queue.packets {
        #expect(packet.count == 64)
        count += 1
        if count == 20_000 { break }
      }
      #expect(count == 20_000)
    }
    await source.quit()
  }

  @Test func `it answers our ping`() async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)], mode: .icmpecho)
    let device = try await open("vhost-user:\(socket)")
    try await device.run { queue in
      for number in 0..<200 {
        let request = Ping.request(number)
        try await queue.send(Packet(copying: request, in: queue.pool))
        var iterator = queue.packets.makeAsyncIterator()
        let answer = try #require(await iterator.next())
        guard answer.array == Ping.answer(to: request) else {
          Issue.record("the answer \(number) differs: \(answer.array)")
          return
        }
      }
    }
    await peer.quit()
  }

  @Test(arguments: [Testpmd.Mode.io, .csum, .fiveTupleSwap])
  func `frames with IP packets come back through`(_ mode: Testpmd.Mode) async throws {
    let socket = socketPath()
    let peer = try await Testpmd([.init(socket: socket)], mode: mode)
    let device = try await open("vhost-user:\(socket)")
    try await device.run { queue in
      for number in 0..<500 {
        let request = Ping.request(number)
        try await queue.submit(Packet(copying: request, in: queue.pool))
        var iterator = queue.packets.makeAsyncIterator()
        let answer = try #require(await iterator.next()).array
        switch mode {
        case .fiveTupleSwap: #expect(answer == Ping.swapped(request))
        // It writes the Ethernet addresses anew.
        case .csum: #expect(answer.dropFirst(12) == request.dropFirst(12))
        default: #expect(answer == request)
        }
      }
    }
    await peer.quit()
  }
}
