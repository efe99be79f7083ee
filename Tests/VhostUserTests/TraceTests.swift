import Logging
import Netdev
import Testing

@testable import VhostUser

/// With a logger at level trace, a person can follow what a switch and we say to each other.
@Suite(.serialized, .timeLimit(.minutes(1))) struct TraceTests {
  @Test func `every message is traced in both directions, in the document's words, with its descriptors`() async throws
  {
    let backend = ScriptedBackend()
    let lines = Lines()
    var opening = Opening(backend)
    opening.options.logger = lines.logger(level: .trace)
    let device = try await opening.open()
    try await device.close()
    let all = lines.all
    for message in backend.messages {
      let line = try #require(all.first { $0.hasPrefix("vhost-user → \(message.code)") }, "\(message.code)")
      // Numbers of descriptors differ from one process to the other, their count does not.
      let descriptors = line.split(separator: " fds=").dropFirst().first?.split(separator: " ") ?? []
      #expect(descriptors.count == message.descriptors.count, "\(line)")
    }
    #expect(all.contains("vhost-user → SET_VRING_NUM ring 1: 16"))
    #expect(all.contains("vhost-user ← SET_VRING_NUM acknowledged"))
    #expect(all.contains("vhost-user ← GET_QUEUE_NUM 128"))
    #expect(all.contains("vhost-user ← GET_VRING_BASE ring 1: 0"))
    #expect(all.contains("vhost-user → SET_STATUS 0xf"))
  }

  @Test func `nothing is traced at other levels`() async throws {
    let backend = ScriptedBackend()
    let lines = Lines()
    var opening = Opening(backend)
    opening.options.logger = lines.logger(level: .info)
    let device = try await opening.open()
    try await device.close()
    #expect(lines.all == [])
  }
}
