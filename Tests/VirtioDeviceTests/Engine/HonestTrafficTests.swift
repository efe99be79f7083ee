import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// The engine opposite the framework's own driver-side ring, with many frames in flight.
@Suite(.serialized) struct HonestTrafficTests {
  @Test(arguments: [1, 4, 32, 128])
  func `20 000 frames through a real driver's rings come back in order and unchanged`(_ burst: Int) throws {
    let rig = try Rig(queueSize: 256, start: false)
    var receiveSetup = unsafe try SplitDriverRing.Configuration(size: 256, block: rig.block)
    receiveSetup.eventIndex = true
    var transmitSetup = unsafe try SplitDriverRing.Configuration(size: 256, block: rig.block + (1 << 20))
    transmitSetup.eventIndex = true
    var receive = try receiveSetup.activate()
    var transmit = try transmitSetup.activate()
    let slot: UInt64 = 2048
    let receiveBase = Rig.guestBase + (4 << 20)
    let transmitBase = Rig.guestBase + (8 << 20)
    for token in 0..<UInt64(256) {
      _ = receive.add(address: receiveBase + token * slot, length: 1526, writable: true, token: token)
    }
    receive.publish()
    try rig.engine.start()
    var free = Array(UInt64(0)..<256)
    var sent = 0
    var received = 0
    var kicks = 0
    while received < 20_000 {
      for _ in 0..<burst {
        guard sent < 20_000, let token = free.popLast() else { break }
        let length = 14 + sent % 1500
        rig.store([UInt8](repeating: 0, count: 12) + pattern(length, seed: sent), at: transmitBase + token * slot)
        if !transmit.add(
          address: transmitBase + token * slot, length: UInt32(12 + length), writable: false, token: token)
        {
          free.append(token)
          break
        }
        sent += 1
      }
      transmit.publish()
      if transmit.needsKick() {
        kicks += 1
        rig.engine.kickTransmit()
      }
      rig.hand.turn()
      while let used = try receive.nextUsed() {
        let length = 14 + received % 1500
        if Int(used.written) != 12 + length { Issue.record("frame \(received) has \(used.written) bytes") }
        expectSame(
          rig.load(Int(used.written), at: receiveBase + used.token * slot),
          plainHeader() + pattern(length, seed: received))
        received += 1
        _ = receive.add(
          address: receiveBase + used.token * slot, length: 1526, writable: true, token: used.token)
      }
      receive.publish()
      if receive.needsKick() { rig.engine.kickReceive() }
      while let used = try transmit.nextUsed() { free.append(used.token) }
    }
    #expect(rig.engine.statistics.drops.total == 0)
    // Under load the engine polls: kicks are few.
    #expect(kicks < 20)
  }
}
