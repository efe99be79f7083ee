import Netdev
import TestSupport
import Testing
import Virtio
import VirtioNet

@testable import VhostUser

/// A back-end that goes away and comes back, as the sockets see it.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct ReconnectTests {
  static func opening(
    _ backend: ScriptedBackend, role: VhostUserTransport.Role = .connect, pool: PacketPool? = nil, rings: Rings = .split
  ) -> Opening {
    var opening = Opening(backend, role: role, pool: pool)
    opening.use(rings)
    opening.options.recovery?.firstDelay = .milliseconds(1)
    opening.options.recovery?.longestDelay = .milliseconds(20)
    return opening
  }

  static func waitUntilBack(_ device: NetworkDevice, times: UInt64) async throws {
    try await eventually("the device is back \(times) times") {
      device.queues[0].statistics.driver.recoveries == times
    }
    try await eventually("the link is up") { device.isLinkUp }
  }

  @Test(arguments: [VhostUserTransport.Role.connect, .listen], Rings.allCases)
  func `the whole handshake is made again, with the same features and rings in fresh memory`(
    _ role: VhostUserTransport.Role, _ rings: Rings
  ) async throws {
    let backend = ScriptedBackend(.init(rings), isClient: role == .listen)
    let device = try await Self.opening(backend, role: role, rings: rings).open()
    let first = backend.messages
    backend.hangUp()
    try await Self.waitUntilBack(device, times: 1)
    let second = Array(backend.messages.dropFirst(first.count))
    #expect(second.map { $0.code } == first.map { $0.code })
    func features(_ messages: [FrontendMessage]) -> [UInt64] {
      messages.compactMap { if case .setFeatures(let bits) = $0 { bits } else { nil } }
    }
    #expect(features(second) == features(first))
    #expect(features(first).allSatisfy { $0 & (1 << 34 | 1 << 35) == rings.features })
    // Rings that are laid anew begin anew.
    let bases = (first + second).compactMap { if case .setVringBase(_, let index) = $0 { index } else { nil } }
    #expect(bases == [UInt32](repeating: rings.base, count: 4))
    try? await device.close()
    #expect(backend.complaints == [])
  }

  @Test(arguments: Rings.allCases)
  func `without the proof of an exit, receive buffers are kept aside, and the pool lives on what is left`(
    _ rings: Rings
  ) async throws {
    let pool = try PacketPool(.init(slots: 512, hugePages: false))
    let backend = ScriptedBackend(.init(rings))
    let device = try await Self.opening(backend, pool: pool, rings: rings).open()
    for times: UInt64 in 1...3 {
      backend.hangUp()
      try await Self.waitUntilBack(device, times: times)
      #expect(device.queues[0].statistics.driver.quarantined == 16 * times)
    }
    try await device.close()
    #expect(pool.free == 512 - 48)
  }

  @Test func `nothing is left open after many reconnections`() async throws {
    let pool = try PacketPool(.init(slots: 4096, hugePages: false))
    let backend = ScriptedBackend()
    let before = openDescriptors()
    try await Self.reconnect(backend, pool, times: 20)
    try await eventually("as before") { openDescriptors() <= before }
  }

  /// In a function of its own: the device's loops end when it returns.
  static func reconnect(_ backend: ScriptedBackend, _ pool: PacketPool, times: UInt64) async throws {
    let device = try await opening(backend, pool: pool).open()
    let open = openDescriptors()
    for times in 1...times {
      backend.hangUp()
      try await waitUntilBack(device, times: times)
    }
    try await eventually("no more than at first") { openDescriptors() <= open }
    try await device.close()
  }

  @Test(arguments: [15, 28, 29, 32, 34, 35] as [UInt64])
  func `a back-end that comes back with fewer features breaks the device, with a typed error`(_ bit: UInt64)
    async throws
  {
    let rings: Rings = bit > 32 ? .packedInOrder : .split
    let backend = ScriptedBackend(.init(rings))
    let device = try await Self.opening(backend, rings: rings).open()
    var offer = ScriptedBackend.Offer(rings)
    offer.features &= ~(1 << bit)
    backend.offer(offer)
    backend.hangUp()
    let error = await #expect(throws: NetworkDeviceError.self) { try await device.queues[0].closed() }
    #expect(error?.code == .unsupported)
    #expect(error?.offered.contains("came back without") == true, "\(String(describing: error))")
    try? await device.close()
  }

  @Test func `a back-end that comes back with fewer queue pairs breaks the device, with a typed error`() async throws {
    let backend = ScriptedBackend()
    var opening = Self.opening(backend)
    opening.configuration.queuePairs = 4
    let device = try await opening.open()
    var offer = ScriptedBackend.Offer()
    offer.queuePairs = 3
    backend.offer(offer)
    backend.hangUp()
    let error = await #expect(throws: NetworkDeviceError.self) { try await device.queues[3].closed() }
    #expect(error?.code == .unsupported)
    try? await device.close()
  }

  @Test func `words that nobody asked for end the connection, and the next one is made`() async throws {
    let backend = ScriptedBackend()
    let device = try await Self.opening(backend).open()
    let reply = MessageHeader(request: 1, payloadSize: 8, isReply: true).encoded + [UInt8](repeating: 0, count: 8)
    for (times, bytes) in [reply, [UInt8](repeating: 0xff, count: 12)].enumerated() {
      backend.say(bytes)
      try await Self.waitUntilBack(device, times: UInt64(times + 1))
    }
    try? await device.close()
  }

  @Test(arguments: [ScriptedBackend.Fault.close, .silence, .wrongVersion, .otherRequest])
  func `a handshake that fails is tried again until one succeeds`(_ fault: ScriptedBackend.Fault) async throws {
    let backend = ScriptedBackend()
    var opening = Self.opening(backend)
    opening.options.requestTimeout = .milliseconds(fault == .silence ? 30 : 5000)
    let device = try await opening.open()
    for (times, code) in [FrontendCode.getFeatures, .setMemTable, .setVringAddr, .setVringEnable].enumerated() {
      backend.breach(.init(code: code, fault: fault))
      let connections = backend.connections
      backend.hangUp()
      try await eventually("it tries") { backend.connections > connections + 2 }
      #expect(!device.isLinkUp)
      backend.breach(nil)
      try await Self.waitUntilBack(device, times: UInt64(times + 1))
    }
    try? await device.close()
  }

  @Test(arguments: [VhostUserTransport.Role.connect, .listen])
  func `closing while the back-end is away is quick, whoever listens`(_ role: VhostUserTransport.Role) async throws {
    let backend = ScriptedBackend(isClient: role == .listen)
    var opening = Self.opening(backend, role: role)
    opening.options.connectTimeout = .seconds(600)
    opening.options.recovery?.firstDelay = .seconds(600)
    opening.options.recovery?.longestDelay = .seconds(600)
    let device = try await opening.open()
    backend.end()
    try await eventually("the link is down") { !device.isLinkUp }
    // The back-end is this very process: its exit cannot be seen, and the buffers stay where they are.
    let error = await #expect(throws: NetworkDeviceError.self) { try await device.close() }
    #expect(error?.code == .resetNotConfirmed)
  }

  @Test func `without reconnection the loss is the end, with its cause`() async throws {
    let backend = ScriptedBackend()
    var opening = Self.opening(backend)
    opening.options.recovery = nil
    let device = try await opening.open()
    let changes = device.linkChanges
    backend.hangUp()
    let error = await #expect(throws: NetworkDeviceError.self) { try await device.queues[0].closed() }
    #expect(error != nil)
    var seen: [LinkChange] = []
    for await change in changes { seen.append(change) }
    #expect(seen.count == 1)
    #expect(backend.connections == 1)
  }
}
