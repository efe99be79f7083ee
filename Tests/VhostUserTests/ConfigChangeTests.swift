import Logging
import Netdev
import TestSupport
import Testing

@testable import VhostUser

/// A back-end that says its configuration has changed is asked for it (vhost-user, BACKEND_CONFIG_CHANGE_MSG).
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct ConfigChangeTests {
  /// An offer with a configuration of address, status, pairs and MTU.
  static func offer(status: UInt8, mtu: UInt16 = 1500) -> ScriptedBackend.Offer {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures.insert(.config)
    offer.features |= 1 << 5 | 1 << 16
    offer.config = [2, 0, 0, 0, 0, 1, status, 0, 4, 0, UInt8(truncatingIfNeeded: mtu), UInt8(mtu >> 8)]
    return offer
  }

  static func announce(_ offer: ScriptedBackend.Offer, by backend: ScriptedBackend) {
    backend.offer(offer)
    #expect(backend.request(2))
    #expect(backend.answerOnChannel() == 0)
  }

  @Test func `a link that goes down and comes up is told as it happens, once`() async throws {
    let backend = ScriptedBackend(Self.offer(status: 1))
    let device = try await Opening(backend).open()
    var changes = device.linkChanges.makeAsyncIterator()
    #expect(device.isLinkUp)
    for _ in 0..<3 {
      Self.announce(Self.offer(status: 0), by: backend)
      let change = await changes.next()
      guard case .down(let cause) = change else { throw Unexpected(change: change) }
      #expect(cause.offered.contains("the device says that its link is down"), "\(cause)")
      #expect(!device.isLinkUp)
      Self.announce(Self.offer(status: 0), by: backend)
      Self.announce(Self.offer(status: 1), by: backend)
      let next = await changes.next()
      #expect(next == .up)
      #expect(device.isLinkUp)
    }
    try await device.close()
    #expect(backend.complaints == [])
  }

  struct Unexpected: Error {
    let change: LinkChange?
  }

  @Test func `a link that is down at the beginning is`() async throws {
    let backend = ScriptedBackend(Self.offer(status: 0))
    let device = try await Opening(backend).open()
    #expect(!device.isLinkUp)
    Self.announce(Self.offer(status: 1), by: backend)
    try await eventually("it comes up") { device.isLinkUp }
    try await device.close()
  }

  @Test func `a back-end that comes back with its link down leaves it down`() async throws {
    let backend = ScriptedBackend(Self.offer(status: 1))
    let device = try await ReconnectTests.opening(backend).open()
    backend.offer(Self.offer(status: 0))
    backend.hangUp()
    try await eventually("the device is back") { device.queues[0].statistics.driver.recoveries == 1 }
    Self.announce(Self.offer(status: 0), by: backend)
    #expect(!device.isLinkUp)
    Self.announce(Self.offer(status: 1), by: backend)
    try await eventually("it comes up") { device.isLinkUp }
    try? await device.close()
  }

  @Test func `another MTU is logged and changes nothing`() async throws {
    let backend = ScriptedBackend(Self.offer(status: 1))
    let log = RecordedLog()
    var opening = Opening(backend)
    opening.options.logger = log.logger(level: .notice)
    let device = try await opening.open()
    Self.announce(Self.offer(status: 1, mtu: 9000), by: backend)
    try await eventually("it is logged") { log.lines.contains { $0.contains("MTU") && $0.contains("9000") } }
    #expect(device.information.mtu == 1500)
    try await device.close()
  }

  @Test func `an absurd configuration is logged and changes nothing`() async throws {
    let backend = ScriptedBackend(Self.offer(status: 1))
    let log = RecordedLog()
    var opening = Opening(backend)
    opening.options.logger = log.logger(level: .notice)
    let device = try await opening.open()
    Self.announce(Self.offer(status: 0xf0), by: backend)
    try await eventually("it is logged") { log.lines.contains { $0.contains("configuration") } }
    #expect(device.isLinkUp)
    try await device.close()
  }

  @Test func `a flood of announcements is answered, and asked after at the pace of the answers`() async throws {
    let backend = ScriptedBackend(Self.offer(status: 1))
    let device = try await Opening(backend).open()
    let before = backend.messages.count
    for _ in 0..<50 { #expect(backend.request(2, needsReply: false)) }
    Self.announce(Self.offer(status: 0), by: backend)
    try await eventually("the last word counts") { !device.isLinkUp }
    #expect(backend.messages.count - before <= 51)
    try await device.close()
    #expect(backend.complaints == [])
  }

  @Test func `without a configuration nobody asks for one`() async throws {
    let backend = ScriptedBackend()
    let device = try await Opening(backend).open()
    Self.announce(.init(), by: backend)
    try await device.close()
    #expect(!backend.messages.contains { $0.code == .getConfig })
  }
}
