import Netdev
import PacketFormats
import TestSupport
import Testing
import Virtio

@testable import VhostUser

/// What the front-end says, in which order, and what it makes of the answers.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct HandshakeTests {
  @Test func `the order is that of the document, and the end stops every ring`() async throws {
    let backend = ScriptedBackend()
    let device = try await Opening(backend).open()
    try await device.close()
    #expect(backend.complaints == [])
    let codes = backend.messages.map { $0.code }
    let perRing: [FrontendCode] = [
      .setVringNum, .setVringBase, .setVringAddr, .setVringErr, .setVringKick, .setVringCall,
    ]
    let expected: [FrontendCode] =
      [.setOwner, .getFeatures, .getProtocolFeatures, .setProtocolFeatures, .getQueueNum, .setBackendReqFD]
      + [.setStatus, .setStatus, .setStatus, .setFeatures, .setStatus, .getStatus, .setMemTable]
      + perRing + perRing + [.setVringEnable, .setVringEnable, .setStatus, .getFeatures]
      + [.getVringBase, .getVringBase, .setStatus]
    #expect(codes == expected)
    let statuses = backend.messages.compactMap { if case .setStatus(let status) = $0 { status } else { nil } }
    #expect(statuses == [0, 1, 3, 11, 15, 0])
  }

  @Test func `regions are whole pages at addresses of their own, and the rings lie in one of them`() async throws {
    let backend = ScriptedBackend()
    var opening = Opening(backend, pool: try PacketPool(.init(slots: 333, hugePages: false)))
    opening.configuration.queuePairs = 3
    let device = try await opening.open()
    try await device.close()
    let tables = backend.messages.compactMap { if case .setMemTable(let regions) = $0 { regions } else { nil } }
    let regions = try #require(tables.first)
    #expect(tables.count == 1)
    #expect(regions.count == 2)
    for region in regions {
      #expect(region.size % 4096 == 0)
      #expect(region.address % 4096 == 0)
      #expect(region.fileOffset == 0)
    }
    let rings = try #require(regions.last)
    var places: [UInt64] = []
    for message in backend.messages {
      guard case .setVringAddr(let addresses) = message else { continue }
      places += [addresses.descriptors, addresses.available, addresses.used]
    }
    #expect(Set(places).count == 18)
    #expect(places.allSatisfy { $0 >= rings.address && $0 < rings.address + rings.size })
  }

  @Test func `features are what both sides know, and the protocol's own bit stays between them`() async throws {
    let backend = ScriptedBackend()
    var opening = Opening(backend)
    opening.options.mtu = 1400
    let device = try await opening.open()
    #expect(device.information.mtu == 1400)
    try await device.close()
    let accepted = backend.messages.compactMap { if case .setFeatures(let bits) = $0 { bits } else { nil } }
    #expect(accepted == [ScriptedBackend.Offer().features])
    #expect(backend.messages.contains(.netSetMTU(1400)))
  }

  @Test func `a back-end that knows nothing of protocol features is served without them`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.features = 1 << 32 | 1 << 15
    let backend = ScriptedBackend(offer)
    let device = try await Opening(backend).open()
    #expect(device.queues.count == 1)
    try await device.close()
    let codes = Set(backend.messages.map { $0.code })
    let extras: Set<FrontendCode> = [
      .getProtocolFeatures, .setProtocolFeatures, .getQueueNum, .setVringEnable, .setStatus, .getStatus,
      .setBackendReqFD, .netSetMTU,
    ]
    #expect(codes.isDisjoint(with: extras), "\(codes)")
    #expect(backend.complaints == [])
  }

  @Test(
    arguments: [[], .replyAck, .status, .mq, .netMTU, [.backendReq, .backendSendFD], [.replyAck, .mq]]
      as [ProtocolFeatures])
  func `whatever part of the protocol a back-end knows is enough`(_ known: ProtocolFeatures) async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures = known
    let backend = ScriptedBackend(offer)
    var opening = Opening(backend)
    opening.options.mtu = 1500
    let device = try await opening.open()
    try await device.close()
    #expect(backend.complaints == [])
    let codes = backend.messages.map { $0.code }
    #expect(codes.contains(.getStatus) == known.contains(.status))
    #expect(codes.contains(.getQueueNum) == known.contains(.mq))
    #expect(codes.contains(.netSetMTU) == known.contains(.netMTU))
    #expect(codes.contains(.setBackendReqFD) == known.contains(.backendReq))
    #expect(codes.count { $0 == .getVringBase } == 2)
  }

  @Test(
    arguments: [
      (.backendSendFD, []), ([.backendSendFD, .replyAck], .replyAck), (.backendReq, .backendReq),
      ([.backendReq, .backendSendFD], [.backendReq, .backendSendFD]),
      (ProtocolFeatures(rawValue: .max), .understood),
    ] as [(ProtocolFeatures, ProtocolFeatures)])
  func `descriptors on the channel are accepted only with the channel, and nothing unknown is`(
    _ offered: ProtocolFeatures, _ accepted: ProtocolFeatures
  ) async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures = offered
    let backend = ScriptedBackend(offer)
    let device = try await Opening(backend).open()
    try await device.close()
    #expect(backend.messages.filter { $0.code == .setProtocolFeatures } == [.setProtocolFeatures(accepted)])
    #expect(backend.messages.contains { $0.code == .setBackendReqFD } == accepted.contains(.backendReq))
    #expect(backend.complaints == [])
  }

  @Test func `a back-end from before VIRTIO 1.0 is a typed error`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.features &= ~(1 << 32)
    #expect(await Opening(ScriptedBackend(offer)).failure()?.code == .unsupported)
  }

  @Test func `memory slots are filled one by one where the back-end has them`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures.insert(.configureMemSlots)
    let backend = ScriptedBackend(offer)
    let device = try await Opening(backend).open()
    try await device.close()
    #expect(backend.messages.count { $0.code == .addMemReg } == 2)
    #expect(backend.messages.count { $0.code == .setMemTable } == 0)
    #expect(backend.complaints == [])
  }

  @Test func `too few memory slots are a typed error`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures.insert(.configureMemSlots)
    offer.memorySlots = 1
    let error = await Opening(ScriptedBackend(offer)).failure()
    #expect(error?.code == .unsupported)
    #expect(error?.offered.contains("2 regions") == true, "\(String(describing: error))")
  }

  @Test func `the configuration is read where the back-end has one`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures.insert(.config)
    offer.features |= 1 << 5 | 1 << 16
    offer.config = [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 1, 0, 4, 0, 0x28, 0x23]
    let backend = ScriptedBackend(offer)
    var opening = Opening(backend)
    opening.configuration.queuePairs = 4
    let device = try await opening.open()
    #expect(device.information.hardwareAddress == MACAddress(2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee))
    #expect(device.information.mtu == 9000)
    try await device.close()
    opening.configuration.queuePairs = 5
    #expect(await opening.failure()?.code == .invalidConfiguration)
  }

  @Test func `a back-end that has no configuration after all is served without it`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures.insert(.config)
    let device = try await Opening(ScriptedBackend(offer)).open()
    #expect(device.information.hardwareAddress?.isLocallyAdministered == true)
    try await device.close()
  }

  @Test func `features that the back-end refuses are a typed error`() async throws {
    var offer = ScriptedBackend.Offer()
    offer.refusesFeatures = true
    let error = await Opening(ScriptedBackend(offer)).failure()
    #expect(error?.code == .unsupported)
    #expect(error?.offered.contains("refused the features") == true)
  }

  @Test func `rings that the back-end polls are started without descriptor and never kicked`() async throws {
    let backend = ScriptedBackend()
    var opening = Opening(backend)
    opening.options.kicks = false
    let device = try await opening.open()
    try await device.close()
    let kicks = backend.messages.filter { $0.code == .setVringKick }
    #expect(
      kicks == [
        .setVringKick(VringDescriptor(ring: 0, descriptor: nil)),
        .setVringKick(VringDescriptor(ring: 1, descriptor: nil)),
      ])
    #expect(backend.messages.filter { $0.code == .setVringCall }.allSatisfy { $0.descriptors.count == 1 })
  }

  @Test func `replies that come byte by byte are put together`() async throws {
    let backend = ScriptedBackend()
    backend.dribble()
    let device = try await Opening(backend).open()
    try await device.close()
    #expect(backend.complaints == [])
  }

  @Test func `a back-end may connect to us, and again`() async throws {
    let backend = ScriptedBackend(isClient: true)
    for _ in 0..<3 {
      let device = try await Opening(backend, role: .listen).open()
      try await device.close()
    }
    #expect(backend.complaints == [])
    #expect(!fileExists(backend.path))
  }

  @Test func `requests of the back-end are answered, and their descriptors closed`() async throws {
    let backend = ScriptedBackend()
    let device = try await Opening(backend).open()
    let before = openDescriptors()
    #expect(backend.request(2))
    #expect(backend.answerOnChannel() == 0)
    #expect(backend.request(2, payload: [1]))
    #expect(backend.answerOnChannel() == 1)
    for code: UInt32 in [1, 3, 99] {
      #expect(backend.request(code, payload: [1, 2, 3], descriptors: [0, 1, 2]))
      #expect(backend.answerOnChannel() == 1)
    }
    #expect(openDescriptors() <= before)
    try await device.close()
  }
}
