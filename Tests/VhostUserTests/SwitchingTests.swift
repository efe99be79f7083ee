import Netdev
import TestSupport
import Testing
import Virtio

@testable import VhostUser

/// Queue pairs of a vhost-user device that are switched off and on: by SET_VRING_ENABLE, and by nothing else.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct SwitchingTests {
  private func enables(_ backend: ScriptedBackend) -> [(ring: UInt32, isEnabled: Bool)] {
    backend.messages.compactMap {
      if case .setVringEnable(let ring, let isEnabled) = $0 { (ring, isEnabled) } else { nil }
    }
  }

  @Test
  func `rings of pairs that are not used any more are disabled, the last first, and enabled again, the first first`()
    async throws
  {
    let backend = ScriptedBackend()
    var opening = Opening(backend)
    opening.configuration.queuePairs = 3
    let device = try await opening.open()
    let before = enables(backend).count
    #expect(before == 6)
    try await device.setActiveQueuePairs(1)
    #expect(device.activeQueuePairs == 1)
    let closed = enables(backend).dropFirst(before)
    #expect(closed.filter { !$0.isEnabled }.map { $0.ring } == [5, 4, 3, 2])
    #expect(closed.count == 4)
    try await device.setActiveQueuePairs(2)
    let opened = enables(backend).dropFirst(before + closed.count)
    #expect(opened.filter { $0.isEnabled }.map { $0.ring } == [2, 3])
    #expect(opened.count == 2)
    #expect(backend.complaints == [])
    try await device.close()
    // Stopped are all of them.
    #expect(backend.messages.count { if case .getVringBase = $0 { true } else { false } } == 6)
  }

  @Test func `a back-end has no message for anything else, and is told none`() async throws {
    let backend = ScriptedBackend()
    let device = try await Opening(backend).open()
    let before = backend.messages.count
    for command in 0..<3 {
      await #expect {
        switch command {
        case 0: try await device.setReceiveMode(.addressed)
        case 1: try await device.addVLAN(7)
        default: try await device.acknowledgeAnnouncement()
        }
      } throws: { ($0 as? NetworkDeviceError)?.code == .unsupported }
    }
    #expect(backend.messages.count == before)
    try await device.close()
  }
}
