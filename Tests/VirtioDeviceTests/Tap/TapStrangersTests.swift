import CTestSupport
import Glibc
import NetdevTesting
import TestSupport
import Testing

@testable import VirtioDevice

/// Other programs at a TAP or TUN interface that a device uses.
extension TapBackendTests {
  @Suite struct Strangers {
    @Test(arguments: [true, false], TapQueue.Kind.all)
    func `queues that another program holds are refused, and it notices nothing`(
      _ withHeaders: Bool, _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let stranger = kind.openStranger(withHeaders: withHeaders)
        #expect(stranger >= 0)
        defer { close(stranger) }
        let differences = kind.differences(stranger, headerLength: 10)
        for queues in [1, 2] {
          do throws(BackendError) {
            _ = try kind.open(queues: queues)
            Issue.record("opened")
          } catch {
            #expect(error.code == .inUse)
            #expect(error.description.contains("not closed yet, has 1 of its queues"))
          }
        }
        #expect(kind.differences(stranger, headerLength: 10) == differences)
      }
    }

    @Test(arguments: TapQueue.Kind.all) func `queues that another program opens later are told`(
      _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(queues: 2), configuration: log.configuration(queuePairs: 2))
        let stranger = kind.openStranger(withHeaders: false)
        #expect(stranger >= 0)
        defer { close(stranger) }
        #expect(rig.hand.wait { log.events.contains(.shared(queues: 3)) })
        #expect(log.loss == nil)
      }
    }

    /// Opens a queue as another program might, and sets the length of the interface's headers.
    private static func setHeaders(_ kind: TapQueue.Kind, _ length: CInt) -> CInt {
      let stranger = kind.openStranger(withHeaders: true)
      #expect(stranger >= 0)
      #expect(test_set_header_length(stranger, length) == 0)
      return stranger
    }

    private static func expectEnd(_ log: EventLog, _ hand: HandTurnedLoop) {
      #expect(hand.wait { log.loss != nil })
      #expect(log.loss?.code == .inUse)
      #expect(log.loss?.description.contains("headers have another length") == true)
    }

    // That a frame of a TAP interface begins later cannot be seen in it.
    @Test(arguments: [(TapQueue.Kind.tap, 10), (.tun, 10), (.tun, 20)] as [(TapQueue.Kind, CInt)])
    func `received frames tell of headers that another program has changed, and none is misread`(
      _ kind: TapQueue.Kind, _ length: CInt
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(queues: 2), configuration: log.configuration(queuePairs: 2))
        let wire = try Wire("tap0")
        var buffers = (0..<20).map { _ in rig.offerReceive([2048]) }
        rig.serve()
        // What the next packet begins with, if the kernel leaves it there.
        wire.send(kind.onWire(100))
        #expect(rig.hand.wait { rig.takeFrame(from: &buffers) != nil })
        close(Self.setHeaders(kind, length))
        wire.send(kind.onWire(100))
        Self.expectEnd(log, rig.hand)
        #expect(rig.takeFrame(from: &buffers) == nil)
        // The kernel may have sent a frame of its own on a link that is new.
        #expect(rig.engine.statistics.drops.total(.received) >= 1)
      }
    }

    @Test func `packets that the kernel takes for none tell of them too`() throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(
          backend: try TapQueue.Kind.tun.open(queues: 2), configuration: log.configuration(queuePairs: 2))
        close(Self.setHeaders(.tun, 10))
        rig.offerTransmit(frame: TapQueue.Kind.tun.frame(100))
        rig.serve()
        #expect(rig.engine.statistics.drops[.transmitted, .refused] == 1)
        Self.expectEnd(log, rig.hand)
      }
    }

    @Test(arguments: TapQueue.Kind.all, [10, 20] as [CInt])
    func `where another program has queues, no frame need tell`(_ kind: TapQueue.Kind, _ length: CInt) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(queues: 2), configuration: log.configuration(queuePairs: 2))
        let stranger = kind.openStranger(withHeaders: true)
        defer { close(stranger) }
        #expect(rig.hand.wait { log.events.contains(.shared(queues: 3)) })
        // Later than the device has asked because of that.
        for _ in 0..<20 {
          rig.hand.poll()
          usleep(5000)
        }
        #expect(log.loss == nil)
        #expect(test_set_header_length(stranger, length) == 0)
        Self.expectEnd(log, rig.hand)
      }
    }
  }
}
