import LibeventConcurrency
import PacketFormats
import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// Turns, kicks, interrupts and the end of an engine.
@Suite(.serialized) struct EngineTests {
  @Test func `Device rule 14: one turn moves no more than the budget, and asks for another while there is more`() throws
  {
    let rig = try Rig(budget: 8)
    for _ in 0..<20 {
      rig.offerReceive([128])
      rig.offerTransmit(frame: pattern(50))
    }
    rig.engine.kickTransmit()
    #expect(rig.hand.turn())
    #expect(rig.transmit.usedCount == 8)
    #expect(rig.hand.turn())
    #expect(rig.transmit.usedCount == 16)
    #expect(rig.hand.turn())
    #expect(rig.transmit.usedCount == 20)
    // One more look at the ring that was busy a moment ago, and then silence.
    #expect(rig.hand.settle() <= 3)
  }

  @Test
  func `Device rule 12: a burst raises each interrupt at most once, and the first after a start unconditionally`()
    throws
  {
    // A stale used_event from before the start that would suppress everything.
    let rig = try Rig(start: false)
    rig.receive.setUsedEvent(30_000)
    rig.transmit.setUsedEvent(30_000)
    try rig.engine.start()
    for _ in 0..<10 {
      rig.offerReceive([128])
      rig.offerTransmit(frame: pattern(50))
    }
    rig.serve()
    #expect(rig.receiveLine.count == 1)
    #expect(rig.transmitLine.count == 1)
    for _ in 0..<10 {
      rig.offerReceive([128])
      rig.offerTransmit(frame: pattern(50))
    }
    rig.serve()
    #expect(rig.receiveLine.count == 1)
    #expect(rig.transmitLine.count == 1)
    #expect(rig.engine.statistics.suppressedCalls == 2)
    #expect(rig.engine.statistics.calls == 2)
  }

  @Test func `with EVENT_IDX the interrupt comes at the entry that the driver named, §2.7.10`() throws {
    let rig = try Rig()
    rig.offerReceive([128])
    rig.offerTransmit(frame: pattern(50))
    rig.serve()
    rig.receive.setUsedEvent(3)
    rig.transmit.setUsedEvent(100)
    for index in 2...6 {
      rig.offerReceive([128])
      rig.offerTransmit(frame: pattern(50))
      rig.serve()
      #expect(rig.receiveLine.count == (index >= 4 ? 2 : 1), "\(index) used")
    }
    #expect(rig.transmitLine.count == 1)
  }

  @Test func `without EVENT_IDX the driver's flag suppresses interrupts, and the device's flag kicks`() throws {
    let rig = try Rig(features: [.version1, .mac, .mrgRxbuf])
    rig.offerReceive([128])
    rig.offerTransmit(frame: pattern(50))
    rig.serve()
    #expect(rig.transmitLine.count == 1)
    rig.transmit.setAvailFlags(1)
    rig.offerReceive([128])
    rig.offerTransmit(frame: pattern(50))
    rig.engine.kickTransmit()
    rig.hand.turn()
    // Busy: no kicks wanted.
    #expect(rig.transmit.usedFlags == 1)
    rig.hand.settle()
    #expect(rig.transmit.usedFlags == 0)
    #expect(rig.transmitLine.count == 1)
    #expect(rig.receiveLine.count == 2)
  }

  @Test func `while work is found kicks are suppressed, and asked for again before the loop sleeps`() throws {
    let rig = try Rig()
    rig.serve()
    for _ in 0..<4 { rig.offerReceive([128]) }
    rig.offerTransmit(frame: pattern(50))
    #expect(rig.wantsTransmitKick)
    rig.engine.kickTransmit()
    rig.hand.turn()
    // Frames added now are found without a kick, as long as the engine polls.
    rig.offerTransmit(frame: pattern(50))
    #expect(!rig.wantsTransmitKick)
    rig.hand.turn()
    #expect(rig.transmit.usedCount == 2)
    rig.hand.settle()
    rig.offerTransmit(frame: pattern(50))
    #expect(rig.wantsTransmitKick)
    // Nobody kicked: nothing happens, however often the loop turns for others.
    rig.hand.settle()
    #expect(rig.transmit.usedCount == 2)
  }

  @Test func `Device rule 12: a frame published between the last look and the arming is found`() throws {
    // The port publishes a frame from inside the burst that finds nothing: after its look, before the arming.
    final class Racer: BackendPort {
      weak var rig: Rig?
      var served = 0
      func start(_ bell: ServiceBell) {}
      func setEnabled(_ enabled: Bool) {}
      func close() {}
      func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
        served += 1
        rings.beginTransmit()
        var budget = budget
        if let chain = rings.nextFrame(&budget) { rings.drop(chain, .refused) }
        if served == 1 { rig?.offerTransmit(frame: pattern(20)) }
        return []
      }
    }
    final class RacingBackend: NetworkBackend {
      let description = "racer"
      let features = FeatureSet()
      let maximumPairs = 1
      let macAddress: MACAddress? = nil
      let mtu: UInt16? = nil
      // Touched on the test's thread only.
      nonisolated(unsafe) let port = Racer()
      func makePort(_ request: PortRequest) -> any BackendPort { unsafe port }
      func close() {}
    }
    let backend = RacingBackend()
    let racing = try Rig(backend: backend, start: false)
    unsafe backend.port.rig = racing
    try racing.engine.start()
    racing.hand.settle()
    #expect(racing.transmit.usedCount == 1)
  }

  @Test func `Device rule 14: spurious kicks are harmless, before the start and after the stop too`() throws {
    let rig = try Rig(start: false)
    rig.offerReceive([128])
    rig.offerTransmit(frame: pattern(50))
    rig.serve()
    #expect(rig.transmit.usedCount == 0)
    try rig.engine.start()
    rig.serve()
    #expect(rig.transmit.usedCount == 1)
    // A million kicks of rings that have nothing: they cost one look a turn, and the loop rests after each thousand.
    for _ in 0..<1000 {
      for _ in 0..<500 {
        rig.engine.kickTransmit()
        rig.engine.kickReceive()
      }
      #expect(rig.hand.settle() <= 3)
    }
    #expect(rig.transmit.usedCount == 1)
    #expect(rig.transmitLine.count == 1)
    rig.engine.stop()
    rig.offerTransmit(frame: pattern(50))
    for _ in 0..<10 { rig.serve() }
    #expect(rig.transmit.usedCount == 1)
  }

  @Test func `after stop nothing in the driver's memory is written, and the bases are where the rings stand`() throws {
    let rig = try Rig(budget: 4)
    for _ in 0..<10 {
      rig.offerReceive([128])
      rig.offerTransmit(frame: pattern(50))
    }
    rig.engine.kickTransmit()
    rig.hand.turn()
    let bases = rig.engine.stop()
    #expect(bases == QueuePairEngine.Bases(receive: 4, transmit: 4))
    let before = rig.load(4 << 20, at: Rig.guestBase)
    rig.serve()
    expectSame(rig.load(4 << 20, at: Rig.guestBase), before)
    #expect(rig.engine.stop() == bases)
  }

  @Test func `Device rule 13: an engine that starts at a base near the wrap goes on counting from there`() throws {
    for start in [UInt16(65530), 1, 65535] {
      let rig = try Rig(startIndex: start)
      for index in 0..<200 {
        let buffer = rig.offerReceive([1526])
        rig.offerTransmit(frame: pattern(64, seed: index))
        rig.serve()
        #expect(rig.receive.takeUsed()?.written == 76)
        #expect(rig.transmit.takeUsed() != nil)
        expectSame(rig.contents(buffer, 76), plainHeader() + pattern(64, seed: index))
      }
      #expect(rig.engine.stop() == QueuePairEngine.Bases(receive: start &+ 200, transmit: start &+ 200))
    }
  }

  @Test func `a disabled pair discards what is transmitted and receives nothing; enabled again it works`() throws {
    let rig = try Rig()
    rig.engine.isEnabled = false
    for _ in 0..<5 { rig.offerReceive([128]) }
    for _ in 0..<100 {
      rig.offerTransmit(frame: pattern(50))
      rig.serve()
      #expect(rig.transmit.takeUsed()?.written == 0)
    }
    #expect(rig.receive.usedCount == 0)
    #expect(rig.engine.statistics.drops[.pairDisabled] == 100)
    rig.engine.isEnabled = true
    rig.offerTransmit(frame: pattern(50))
    rig.serve()
    #expect(rig.receive.takeUsed()?.written == 62)
  }

  @Test func `IN_ORDER rings get their buffers back in order`() throws {
    let rig = try Rig(features: [.version1, .inOrder, .mrgRxbuf])
    for round in 0..<20 {
      let buffers = (0..<12).map { _ in rig.offerReceive([200]) }
      for length in [50, 500, 10, 300] { rig.offerTransmit(frame: pattern(length, seed: round)) }
      rig.serve()
      var used = 0
      while let element = rig.receive.takeUsed() {
        #expect(element.id == UInt32(buffers[used].head))
        used += 1
      }
      #expect(used == 7)
      while rig.transmit.takeUsed() != nil {}
      for _ in 7..<12 { rig.offerTransmit(frame: [1]) }
      rig.serve()
      while rig.receive.takeUsed() != nil {}
      while rig.transmit.takeUsed() != nil {}
    }
  }
}
