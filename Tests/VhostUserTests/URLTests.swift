import Logging
import TestSupport
import Testing

@testable import NetdevDevices
import PacketFormats
@testable import VhostUser

/// Each key of a `vhost-user:` URL makes a difference that the peer sees.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct URLTests {
  /// Opens and closes a device, and returns what the back-end saw.
  func messages(
    _ options: String, on backend: ScriptedBackend, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> [FrontendMessage] {
    let before = backend.messages.count
    var configuration = NetworkDevice.Configuration()
    configuration.logger.logLevel = .critical
    let device = try await NetworkDevice.open("vhost-user:\(backend.path)\(options)", configuration: configuration)
    try await device.close()
    #expect(backend.complaints == [], sourceLocation: sourceLocation)
    return Array(backend.messages.dropFirst(before))
  }

  func features(_ messages: [FrontendMessage]) -> UInt64? {
    messages.lazy.compactMap { if case .setFeatures(let bits) = $0 { bits } else { nil } }.first
  }

  @Test(arguments: [("mrg_rxbuf", 15), ("indirect", 28), ("event_idx", 29)])
  func `a feature's key takes its bit away`(_ key: String, _ bit: Int) async throws {
    let backend = ScriptedBackend()
    let with = try #require(features(try await messages("?\(key)=1", on: backend)))
    let without = try #require(features(try await messages("?\(key)=0", on: backend)))
    #expect(with == features(try await messages("", on: backend)))
    #expect(without == with & ~(1 << UInt64(bit)))
    #expect(without != with)
  }

  @Test func `queues is the number of pairs that are set up`() async throws {
    let backend = ScriptedBackend()
    for pairs in [1, 3, 8] {
      let seen = try await messages("?queues=\(pairs)&queue_size=8", on: backend)
      #expect(seen.count { $0.code == .setVringKick } == 2 * pairs)
      #expect(seen.contains(.setVringEnable(ring: UInt32(2 * pairs - 1), isEnabled: true)))
    }
  }

  @Test func `queue_size is the size of every ring`() async throws {
    let backend = ScriptedBackend()
    for size: UInt32 in [256, 512, 1024] {
      let seen = try await messages(size == 256 ? "" : "?queue_size=\(size)", on: backend)
      #expect(
        seen.filter { $0.code == .setVringNum } == [
          .setVringNum(ring: 0, size: size), .setVringNum(ring: 1, size: size),
        ])
    }
  }

  @Test(arguments: [("", "nobody listens there; start the switch"), ("?server=1", "its directory is not there; make")])
  func `a path in a directory that is not there`(_ options: String, _ words: String) async {
    let error = await #expect(throws: NetworkDeviceError.self) {
      try await NetworkDevice.open("vhost-user:/no-such-directory/x\(options)")
    }
    #expect(error?.code == .notFound)
    #expect(error?.description.contains(words) == true, "\(String(describing: error))")
  }

  @Test func `server lets the switch connect`() async throws {
    let backend = ScriptedBackend(isClient: true)
    #expect(try await messages("?server=1&connect_timeout=60", on: backend).count > 25)
  }

  @Test func `mtu is told and offered, kicks are left out, and the address is taken`() async throws {
    let backend = ScriptedBackend()
    let seen = try await messages("?mtu=1280&kicks=0", on: backend)
    #expect(seen.contains(.netSetMTU(1280)))
    #expect(try #require(features(seen)) & 1 << 3 != 0)
    #expect(seen.contains(.setVringKick(VringDescriptor(ring: 0, descriptor: nil))))
    let plain = try await messages("?kicks=1", on: backend)
    #expect(plain.allSatisfy { $0.code != .netSetMTU })
    #expect(try #require(features(plain)) & 1 << 3 == 0)
    let device = try await NetworkDevice.open("vhost-user:\(backend.path)?mac=02:aa:00:00:00:01")
    #expect(device.information.hardwareAddress == MACAddress(2, 0xaa, 0, 0, 0, 1))
    try await device.close()
  }

  @Test(arguments: ["", "?reconnect=1", "?in_flight=resubmit", "?in_flight=fail", "?reconnect=0"])
  func `a lost back-end is awaited or not, and its frames go again or fail`(_ options: String) async throws {
    let backend = ScriptedBackend()
    var configuration = NetworkDevice.Configuration()
    configuration.logger.logLevel = .critical
    configuration.resetTimeout = .milliseconds(50)
    let device = try await NetworkDevice.open("vhost-user:\(backend.path)\(options)", configuration: configuration)
    let queue = device.queues[0]
    let send = Task { try await queue.send(Packet(copying: [UInt8](repeating: 1, count: 60), in: queue.pool)) }
    try await eventually("it is published") { queue.statistics.packetsSubmitted == 1 }
    backend.hangUp()
    let isEnd = options == "?reconnect=0"
    if isEnd {
      await #expect(throws: NetworkDeviceError.self) { try await queue.closed() }
    } else {
      try await eventually("it is back") { queue.statistics.driver.recoveries == 1 }
    }
    #expect(backend.connections == (isEnd ? 1 : 2))
    let isFailure = options == "?in_flight=fail"
    #expect(queue.statistics.driver.resubmitted == (isFailure || isEnd ? 0 : 1))
    #expect(queue.statistics.packetsFailed == (isFailure || isEnd ? 1 : 0))
    try? await device.close()
    await #expect(throws: NetworkDeviceError.self) { try await send.value }
  }

  @Test(arguments: [
    ("", [60, 5, 10]), ("?connect_timeout=7", [7, 5, 10]), ("?timeout=7", [60, 7, 10]),
    ("?serve_timeout=7", [60, 5, 7]), ("?timeout=1&serve_timeout=2&connect_timeout=3", [3, 1, 2]),
    ("?connect_timeout=86400&timeout=3600&serve_timeout=3600", [86400, 3600, 3600]),
  ])
  func `each time-out's key sets that one, in seconds`(_ options: String, _ seconds: [Int]) throws {
    guard case .vhostUser(let read) = try DeviceSpecification("vhost-user:/tmp/x\(options)").kind else {
      Issue.record("another device")
      return
    }
    #expect(
      [read.connectTimeout, read.requestTimeout, read.serviceTimeout] == seconds.map { Duration.seconds($0) })
  }

  @Test func `time-outs are what the URL says`() async throws {
    let silent = ScriptedBackend(breach: .init(code: .getFeatures, fault: .silence))
    let absent = ScriptedBackend()
    absent.end()
    for url in ["vhost-user:\(silent.path)?timeout=1", "vhost-user:\(absent.path)?server=1&connect_timeout=1"] {
      await #expect { _ = try await NetworkDevice.open(url) } throws: { ($0 as? NetworkDeviceError)?.code == .timedOut }
    }
  }

  @Test(arguments: [
    "vhost-user:", "vhost-user:?server=1", "vhost-user:/tmp/x?server=2", "vhost-user:/tmp/x?queue_size=100",
    "vhost-user:/tmp/x?queues=0", "vhost-user:/tmp/x?mtu=67", "vhost-user:/tmp/x?mac=01:00:00:00:00:01",
    "vhost-user:/tmp/x?mac=2:0:0:0:0:1", "vhost-user:/tmp/x?timeout=0", "vhost-user:/tmp/x?kicks=yes",
    "vhost-user:/tmp/x?lossless=1", "vhost-user:/tmp/x?placement=own", "vhost-user:/tmp/x?serve_timeout=0",
    "vhost-user:/tmp/x?reconnect=yes", "vhost-user:/tmp/x?in_flight=drop",
    "vhost-user:/" + String(repeating: "x", count: 107),
  ])
  func `what makes no sense is refused before anything is opened`(_ url: String) async throws {
    // With a queue size, the refusal may come after the first words: then somebody must be there to hear them.
    let backend = ScriptedBackend()
    defer { backend.end() }
    let url = url.contains("queue_size") ? url.replacing("/tmp/x", with: backend.path) : url
    await #expect { _ = try await NetworkDevice.open(url) } throws: {
      ($0 as? NetworkDeviceError)?.code == .invalidConfiguration
    }
  }
}
