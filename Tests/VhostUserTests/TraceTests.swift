import Foundation
import Logging
import Netdev
import TestSupport
import Testing

@testable import VhostUser

/// With a logger at level trace, a person can follow what a switch and we say to each other.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(1))) struct TraceTests {
  @Test func `every message is traced in both directions, in the document's words, with its descriptors`() async throws
  {
    let backend = ScriptedBackend()
    let log = RecordedLog()
    var opening = Opening(backend)
    opening.options.logger = log.logger(level: .trace)
    let device = try await opening.open()
    try await device.close()
    let all = log.lines
    for message in backend.messages {
      let line = try #require(all.first { $0.hasPrefix("vhost-user → \(message.code)") }, "\(message.code)")
      // Numbers of descriptors differ from one process to the other, their count does not.
      #expect(Self.descriptors(line) == message.descriptors.count, "\(line)")
    }
    #expect(all.contains("vhost-user → SET_VRING_NUM ring 1: 16"))
    #expect(all.contains("vhost-user ← SET_VRING_NUM acknowledged"))
    #expect(all.contains("vhost-user ← GET_QUEUE_NUM 128"))
    #expect(all.contains("vhost-user ← GET_VRING_BASE ring 1: 0"))
    #expect(all.contains("vhost-user → SET_STATUS 0xf"))
  }

  @Test func `requests of the back-end are traced with their descriptors, and so are their answers`() async throws {
    let backend = ScriptedBackend()
    let log = RecordedLog()
    var opening = Opening(backend)
    opening.options.logger = log.logger(level: .trace)
    let device = try await opening.open()
    let before = log.lines.count
    #expect(backend.request(2))
    #expect(backend.answerOnChannel() == 0)
    #expect(backend.request(3, payload: [1], descriptors: [0, 1]))
    #expect(backend.answerOnChannel() == 1)
    #expect(backend.request(2, needsReply: false))
    try await eventually("all three are traced") { log.lines.count >= before + 5 }
    let new = log.lines.dropFirst(before)
    #expect(
      new.map { $0.components(separatedBy: " fds=")[0] } == [
        "vhost-user ← BACKEND_CONFIG_CHANGE_MSG", "vhost-user → BACKEND_CONFIG_CHANGE_MSG acknowledged",
        "vhost-user ← BACKEND_VRING_HOST_NOTIFIER_MSG", "vhost-user → BACKEND_VRING_HOST_NOTIFIER_MSG refused with 1",
        "vhost-user ← BACKEND_CONFIG_CHANGE_MSG",
      ])
    #expect(new.map { Self.descriptors($0) } == [0, 0, 2, 0, 0])
    try await device.close()
  }

  @Test func `a reply that is refused is traced all the same, with the descriptors that came with it`() async throws {
    let log = RecordedLog()
    var opening = Opening(ScriptedBackend(breach: .init(code: .getFeatures, fault: .descriptor)))
    opening.options.logger = log.logger(level: .trace)
    #expect(await opening.failure()?.code == .broken)
    let line = try #require(log.lines.first { $0.hasPrefix("vhost-user ← GET_FEATURES") })
    #expect(Self.descriptors(line) == 1)
  }

  @Test func `who listens, who was accepted and why the channel ended is said at level debug`() async throws {
    let backend = ScriptedBackend(isClient: true)
    let log = RecordedLog()
    var opening = Opening(backend, role: .listen)
    opening.options.logger = log.logger(level: .debug)
    let device = try await opening.open()
    #expect(log.lines == ["waiting for the vhost-user back-end to connect", "vhost-user back-end accepted"])
    backend.closeChannel()
    try await eventually("the end of the channel is told") { log.lines.count > 2 }
    #expect(log.lines.last == "vhost-user back-end channel over cause=the peer closed the connection")
    #expect(device.isLinkUp)
    try await device.close()
  }

  /// How many descriptors a line tells of.
  static func descriptors(_ line: String) -> Int {
    line.components(separatedBy: " fds=").dropFirst().first?.split(separator: " ").count ?? 0
  }

  @Test func `nothing is traced at other levels`() async throws {
    let backend = ScriptedBackend()
    let log = RecordedLog()
    var opening = Opening(backend)
    opening.options.logger = log.logger(level: .info)
    let device = try await opening.open()
    try await device.close()
    #expect(log.lines == [])
  }
}
