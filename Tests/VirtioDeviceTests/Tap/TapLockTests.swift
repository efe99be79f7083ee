import CNetdevSystem
import CTestSupport
import Glibc
import HostInterfaces
import LibeventConcurrency
import NetdevTesting
import Synchronization
import TestSupport
import Testing

@testable import VirtioDevice

/// A TAP interface while the kernel is slow: somebody holds its lock of links, or the end of a pair is not done yet.
extension TapBackendTests {
  @Suite struct Questions {
    /// Whether this process can hold the lock, which takes userfaultfd.
    private static let canHold = NetworkNamespace.isAvailable && test_can_hold_link_lock()

    @Test(.enabled(if: canHold, "needs root and userfaultfd"))
    func `whoever holds the kernel's lock of links, while it is asked about one, holds no loop`() throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let backend = try TapBackend("tap0")
        let rig = try Rig(backend: backend, configuration: log.configuration())
        let socket = try #require(backend.state.withLock { $0.link?.socket })
        rig.serve()
        // Let go in the end whatever comes.
        #expect(test_hold_link_lock(500) == 0)
        #expect(test_tell_netlink(socket.descriptor) == 0)
        // It looks now, and has to wait.
        usleep(20_000)
        for _ in 0..<50 {
          rig.offerTransmit(frame: frame(60))
          rig.serve()
          rig.hand.poll()
        }
        #expect(rig.engine.statistics.transmittedFrames == 50)
        #expect(test_link_lock_is_held() == 1)
        while test_link_lock_is_held() == 1 { usleep(1000) }
        // And it is told of everything afterwards.
        #expect(setMTU("tap0", 4000) == 0)
        #expect(rig.hand.wait { log.events.contains(.mtuChanged(to: 4000)) })
      }
    }
  }

  @Suite struct LinkLock {
    private static let canHold = NetworkNamespace.isAvailable && test_can_hold_link_lock()

    /// What is done while somebody holds the kernel's lock of links returns while he does.
    private func expectNoWait(_ body: () throws -> Void) rethrows {
      #expect(test_hold_link_lock(500) == 0)
      try body()
      #expect(test_link_lock_is_held() == 1, "it has waited for the lock")
      while test_link_lock_is_held() == 1 { usleep(1000) }
    }

    @Test(.enabled(if: canHold, "needs root and userfaultfd"))
    func `a pair is switched and closed without waiting for who holds the lock, and in that order`() throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let backend = try TapBackend("tap0", queues: 2)
        let rig = try Rig(backend: backend, configuration: log.configuration(queuePairs: 2))
        let queue = try #require(backend.state.withLock { $0.queues.first })
        expectNoWait {
          for _ in 0..<5 {
            rig.engine.isEnabled = false
            rig.engine.isEnabled = true
          }
          rig.hand.settle()
        }
        // What was asked for last is how it is in the end.
        #expect(rig.hand.wait { netdev_tap_differences(queue.descriptor, true, 12) == 0 })
        expectNoWait { rig.engine.stop() }
        let detached = NETDEV_TAP_DETACHED
        #expect(rig.hand.wait { netdev_tap_differences(queue.descriptor, true, 12) == detached })
        #expect(log.loss == nil)
      }
    }

    @Test(.enabled(if: canHold, "needs root and userfaultfd"))
    func `frames that are out of order hold no loop, and the interface is asked about afterwards`() throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try TapBackend("tap0", queues: 2), configuration: log.configuration(queuePairs: 2))
        let wire = try Wire("tap0")
        for _ in 0..<8 { rig.offerReceive([1526]) }
        rig.serve()
        let stranger = openTapQueue("tap0", withHeaders: true)
        #expect(test_set_header_length(stranger, 10) == 0)
        close(stranger)
        expectNoWait {
          for _ in 0..<3 { wire.send(frame(100)) }
          // Frames of the kernel's own may come between them.
          #expect(rig.hand.wait { rig.engine.statistics.drops[.received, .malformedFrame] >= 3 })
          #expect(log.loss == nil)
        }
        #expect(rig.hand.wait { log.loss?.code == .inUse })
      }
    }
  }

  @Suite struct Restarts {
    @Test func `a pair that is started again, while the end of the one before is not done yet, receives`() throws {
      try NetworkNamespace.run {
        let backend = try TapBackend("tap0", queues: 2)
        let rig = try Rig(backend: backend)
        let queue = try #require(backend.state.withLock { $0.queues.first })
        // Long enough for a second start that does not wait its turn.
        queue.calls.start { usleep(100_000) }
        rig.engine.stop()
        let again = try Rig(backend: backend)
        queue.calls.finish()
        #expect(netdev_tap_differences(queue.descriptor, true, 12) == 0)
        let wire = try Wire("tap0")
        var buffers = (0..<8).map { _ in again.offerReceive([1526]) }
        again.serve()
        wire.send(frame(200))
        var bytes: [UInt8]?
        #expect(
          again.hand.wait {
            bytes = again.takeFrame(from: &buffers); return bytes != nil
          })
        expectSame(bytes ?? [], frame(200))
      }
    }
  }
}
