import CNetdevSystem
import CTestSupport
import Glibc
import HostInterfaces
import LibeventConcurrency
import NetdevTesting
import PacketFormats
import Synchronization
import TestSupport
import Testing
import Virtio

@testable import VirtioDevice

/// A frame with so many VLAN tags behind its addresses, `count` bytes in all.
private func tagged(_ count: Int, tags: Int) -> [UInt8] {
  let plain = frame(count - 4 * tags)
  // IEEE 802.1ad outside, IEEE 802.1Q inside.
  let outer: [UInt8] = [0x88, 0xA8, 0, 1]
  let inner: [UInt8] = [0x81, 0, 0, 2]
  let inserted = tags == 0 ? [] : tags == 1 ? inner : outer + inner
  return Array(plain[..<12]) + inserted + Array(plain[12...])
}

/// What goes wrong with a TAP or TUN interface under a device: it has another MTU, is set down, deleted, refused.
extension TapBackendTests {
  @Suite struct Limits {
    @Test func `one limit holds both ways: a frame may be longer by its VLAN tags, two at most, and no more`() throws {
      try NetworkNamespace.run {
        let rig = try Rig(backend: try TapBackend("tap0"))
        // The kernel's side may send and receive more than the device was opened for.
        #expect(setMTU("tap0", 9000) == 0)
        let wire = try Wire("tap0")
        let passing = [(1514, 0), (1518, 1), (1522, 2)]
        let tooLong = [(1515, 0), (1519, 1), (1523, 2), (1518, 0), (1522, 1), (4000, 2), (9014, 0)]
        for (count, tags) in passing + tooLong { rig.offerTransmit(frame: tagged(count, tags: tags)) }
        rig.serve()
        #expect(rig.engine.statistics.transmittedFrames == UInt64(passing.count))
        #expect(rig.engine.statistics.drops[.transmitted, .tooLong] == UInt64(tooLong.count))
        #expect(rig.transmit.usedCount == passing.count + tooLong.count)

        var buffers = (0..<60).map { _ in rig.offerReceive([2048]) }
        rig.serve()
        // Untagged ones and the end, as the socket takes tags out and puts them aside.
        for count in [1514, 1515, 1522, 4000, 9014, 60] { wire.send(frame(count)) }
        var received: [Int] = []
        #expect(
          rig.hand.wait {
            while let bytes = rig.takeFrame(from: &buffers) { received.append(bytes.count) }
            return received.last == 60
          })
        #expect(received == [1514, 60])
        #expect(rig.engine.statistics.drops[.received, .tooLong] == 4)
      }
    }

    @Test func `tagged frames come in as long as they go out`() throws {
      try NetworkNamespace.run {
        let rig = try Rig(backend: try TapBackend("tap0"))
        #expect(setMTU("tap0", 9000) == 0)
        let wire = try Wire("tap0")
        var buffers = (0..<8).map { _ in rig.offerReceive([2048]) }
        rig.serve()
        let frames = [tagged(1518, tags: 1), tagged(1522, tags: 2), tagged(1519, tags: 1), tagged(1523, tags: 2)]
        for frame in frames { wire.send(frame) }
        wire.send(frame(60))
        var lengths: [Int] = []
        #expect(
          rig.hand.wait {
            while let used = rig.receive.takeUsed() {
              let bytes = rig.contents(buffers.removeFirst(), Int(used.written))
              // The kernel's own neighbour discovery is passed over.
              if bytes[12 + 6] == 2, bytes[12 + 11] == 8 { lengths.append(bytes.count - 12) }
            }
            return lengths.last == 60
          })
        #expect(lengths == [1518, 1522, 60])
        #expect(rig.engine.statistics.drops[.received, .tooLong] == 2)
      }
    }

    @Test func `an MTU that is changed is told, and each reason to drop is told once`() throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try TapBackend("tap0"), configuration: log.configuration())
        for _ in 0..<20 { rig.offerReceive([2048]) }
        rig.serve()
        #expect(setMTU("tap0", 4000) == 0)
        #expect(rig.hand.wait { log.events.contains(.mtuChanged(to: 4000)) })
        let wire = try Wire("tap0")
        for _ in 0..<3 { wire.send(frame(2000)) }
        #expect(rig.hand.wait { rig.engine.statistics.drops[.received, .tooLong] == 3 })
        rig.hand.settle()
        #expect(log.events.filter { $0 == .firstDrop(.received, .tooLong) }.count == 1)
        #expect(rig.device.drops[0][.received, .tooLong] == 3)
        #expect(log.loss == nil)
      }
    }
  }

  @Suite struct Losses {
    @Test(arguments: [0, 8], TapQueue.Kind.all)
    func `an interface that is deleted ends the device with an error that names it`(
      _ buffers: Int, _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        #expect(kind.makePersistent("tap0", multiQueue: false) == 0)
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        // Also when the port cannot read, and does not watch its descriptor.
        for _ in 0..<buffers { rig.offerReceive([2048]) }
        rig.serve()
        #expect(shell("ip link del tap0") == 0)
        #expect(rig.hand.wait { log.loss != nil })
        #expect(log.loss?.code == .lost)
        #expect(log.loss?.description.contains("tap0") == true)
        #expect(rig.device.loss == log.loss)
        #expect(rig.device.status.contains(.needsReset))
        // What is sent comes back, counted; and nothing keeps the loop awake.
        for _ in 0..<5 { rig.offerTransmit(frame: kind.frame(60)) }
        rig.serve()
        #expect(rig.transmit.usedCount == 5)
        #expect(rig.engine.statistics.drops[.transmitted, .linkDown] == 5)
        #expect(rig.engine.statistics.transmittedFrames == 0)
        #expect(rig.hand.idleServices(of: rig) <= 2)
      }
    }

    @Test func `a link that has the interface's old number is not taken for it`() throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let backend = try TapBackend("tap0")
        let other = try #require(LinkSocket()?.look("lo"))
        // As after a move, when the number was given to somebody else before anybody looked.
        backend.state.withLock { $0.link?.index = other.index }
        let rig = try Rig(backend: backend, configuration: log.configuration())
        rig.serve()
        #expect(setMTU("tap0", 4000) == 0)
        #expect(rig.hand.wait { !log.events.isEmpty })
        #expect(log.events == [.mtuChanged(to: 4000)])
      }
    }

    @Test(arguments: TapQueue.Kind.all) func `without netlink, a frame finds out`(
      _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        #expect(kind.makePersistent("tap0", multiQueue: true) == 0)
        let backend = try kind.open(queues: 2)
        // The second pair's port does not watch the interface.
        let rig = try Rig(backend: backend, pair: 1, configuration: log.configuration(queuePairs: 2))
        #expect(shell("ip link del tap0") == 0)
        rig.offerTransmit(frame: kind.frame(60))
        rig.serve()
        #expect(log.loss?.code == .lost)
        #expect(rig.engine.statistics.drops[.transmitted, .linkDown] == 1)
      }
    }

    @Test(arguments: TapQueue.Kind.all)
    func `an interface that is set down is told, frames are counted, and it goes on when it is up`(
      _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        #expect(rig.device.isLinkUp)
        #expect(shell("ip link set tap0 down") == 0)
        #expect(rig.hand.wait { !rig.device.isLinkUp })
        rig.offerTransmit(frame: kind.frame(60))
        rig.serve()
        #expect(rig.engine.statistics.drops[.transmitted, .linkDown] == 1)
        #expect(rig.hand.idleServices(of: rig) <= 2)
        #expect(shell("ip link set tap0 up") == 0)
        #expect(rig.hand.wait { rig.device.isLinkUp })
        rig.offerTransmit(frame: kind.frame(60))
        rig.serve()
        #expect(rig.engine.statistics.transmittedFrames == 1)
        #expect(
          log.events.filter { if case .link = $0 { true } else { false } } == [.link(isUp: false), .link(isUp: true)])
      }
    }

    @Test(arguments: TapQueue.Kind.all)
    func
      `a port that does not watch the interface learns from frames that it is down, and from its queue that it is up`(
        _ kind: TapQueue.Kind
      ) throws
    {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(
          backend: try kind.open(queues: 2), pair: 1, configuration: log.configuration(queuePairs: 2))
        #expect(shell("ip link set tap0 down") == 0)
        rig.offerTransmit(frame: kind.frame(60))
        rig.serve()
        #expect(!rig.device.isLinkUp)
        #expect(rig.hand.idleServices(of: rig) <= 2)
        #expect(shell("ip link set tap0 up") == 0)
        #expect(rig.hand.wait { rig.device.isLinkUp })
      }
    }

    @Test(arguments: TapQueue.Kind.all)
    func `an interface that is moved to another namespace is not lost, and is still watched`(
      _ kind: TapQueue.Kind
    ) async throws {
      let there = NamespaceThread()
      let path = try await there.path
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        #expect(shell("ip link set tap0 netns \(path)") == 0)
        // Moving sets it down.
        #expect(rig.hand.wait { !rig.device.isLinkUp })
        #expect(shell("nsenter --net=\(path) ip link set tap0 up") == 0)
        #expect(rig.hand.wait { rig.device.isLinkUp })
        #expect(log.loss == nil)
        #expect(shell("nsenter --net=\(path) ip link del tap0") == 0)
        #expect(rig.hand.wait { log.loss?.code == .lost })
      }
    }

    /// Moves `tap0` there, and gives its number and its name to another interface here, of an MTU of its own.
    private static func replace(movedTo path: String) throws {
      let number = try #require(LinkSocket()?.look("tap0")).index
      #expect(shell("ip link set tap0 netns \(path)") == 0)
      #expect(shell("ip link add tap0 index \(number) mtu 4000 type veth peer name other && ip link set tap0 up") == 0)
    }

    @Test func `a link that has the interface's old number and its name is not taken for it`() async throws {
      let there = NamespaceThread()
      let path = try await there.path
      try NetworkNamespace.run {
        let log = EventLog()
        let backend = try TapBackend("tap0")
        try Self.replace(movedTo: path)
        let rig = try Rig(backend: backend, configuration: log.configuration())
        #expect(rig.hand.wait { !log.events.isEmpty })
        #expect(shell("nsenter --net=\(path) ip link set tap0 mtu 3000") == 0)
        #expect(rig.hand.wait { log.events.contains(.mtuChanged(to: 3000)) })
        #expect(log.events == [.link(isUp: false), .mtuChanged(to: 3000)])
      }
    }

    @Test func `where nobody may look for the interface, a link of its name is not taken for it`() async throws {
      let there = NamespaceThread()
      let path = try await there.path
      try NetworkNamespace.run {
        let log = EventLog()
        let backend = try TapBackend("tap0")
        try Self.replace(movedTo: path)
        let result = onThreadRefusing(test_call_setns, EPERM) {
          do {
            let rig = try Rig(backend: backend, configuration: log.configuration())
            #expect(rig.hand.wait(within: .seconds(30)) { !log.events.isEmpty })
          } catch {
            Issue.record("\(error)")
          }
        }
        #expect(result == 0)
        #expect(log.events == [.unwatched])
      }
    }
  }

  @Suite struct Refusals {
    @Test(
      arguments: [(EPERM, true), (ENOSYS, true), (ENOMEM, false), (EIO, false), (EFAULT, false), (EAGAIN, false)],
      TapQueue.Kind.all)
    func `reading that is refused never keeps the loop awake, and ends the device if it will not pass`(
      _ refusal: (error: CInt, isFinal: Bool), _ kind: TapQueue.Kind
    ) throws {
      let (error, isFinal) = refusal
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        let wire = try Wire("tap0")
        var buffers = (0..<40).map { _ in rig.offerReceive([2048]) }
        rig.serve()
        refusing(test_call_readv, error, on: rig.hand) {
          for _ in 0..<3 { wire.send(kind.onWire(100)) }
          // A millisecond, two, four …; a descriptor that is ready and empty is believed sixteen times.
          #expect(rig.hand.idleServices(of: rig) <= 40)
        }
        #expect((log.loss != nil) == isFinal)
        guard !isFinal else {
          #expect(log.loss?.code == .permission)
          #expect(rig.hand.idleServices(of: rig) <= 2)
          return
        }
        // Once it is not refused any more, it goes on.
        var received = 0
        #expect(
          rig.hand.wait {
            while rig.takeFrame(from: &buffers) != nil { received += 1 }
            return received == 3
          })
      }
    }

    @Test(arguments: TapQueue.Kind.all) func `reading that is refused for ever for no known reason ends the device`(
      _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        let wire = try Wire("tap0")
        for _ in 0..<8 { rig.offerReceive([2048]) }
        rig.serve()
        refusing(test_call_readv, EIO, on: rig.hand) {
          wire.send(kind.onWire(100))
          #expect(rig.hand.wait(within: .seconds(30)) { log.loss != nil })
        }
        #expect(log.loss?.code == .system)
        #expect(log.loss?.errno == EIO)
      }
    }

    @Test(arguments: [ENOBUFS, ENOMEM, EAGAIN], TapQueue.Kind.all)
    func `writing that is refused for now waits without keeping the loop awake, and loses nothing`(
      _ error: CInt, _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        refusing(test_call_writev, error, on: rig.hand) {
          for _ in 0..<3 { rig.offerTransmit(frame: kind.frame(60)) }
          rig.serve()
          #expect(rig.hand.idleServices(of: rig) <= 20)
          #expect(rig.transmit.usedCount == 0)
        }
        #expect(rig.hand.wait { rig.engine.statistics.transmittedFrames == 3 })
        #expect(rig.engine.statistics.drops.total == 0)
        #expect(log.loss == nil)
      }
    }

    @Test(
      arguments: [(EINVAL, DropReason.refused), (EFAULT, .memoryFault), (EMSGSIZE, .tooLong), (EIO, .linkDown)],
      TapQueue.Kind.all)
    func `writing that is refused for a frame's own sake drops that frame and counts it`(
      _ refusal: (error: CInt, reason: DropReason), _ kind: TapQueue.Kind
    ) throws {
      let (error, reason) = refusal
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        refusing(test_call_writev, error, on: rig.hand) {
          for _ in 0..<3 { rig.offerTransmit(frame: kind.frame(60)) }
          rig.serve()
        }
        #expect(rig.transmit.usedCount == 3)
        #expect(rig.engine.statistics.drops[.transmitted, reason] == 3)
        rig.offerTransmit(frame: kind.frame(60))
        rig.serve()
        #expect(rig.engine.statistics.transmittedFrames == 1)
        #expect(log.loss == nil)
      }
    }

    @Test(arguments: [EPERM, ENOSYS], TapQueue.Kind.all) func `writing that a filter refuses ends the device`(
      _ error: CInt, _ kind: TapQueue.Kind
    ) throws {
      try NetworkNamespace.run {
        let log = EventLog()
        let rig = try Rig(backend: try kind.open(), configuration: log.configuration())
        refusing(test_call_writev, error, on: rig.hand) {
          for _ in 0..<3 { rig.offerTransmit(frame: kind.frame(60)) }
          rig.serve()
        }
        #expect(log.loss?.code == .permission)
        #expect(rig.transmit.usedCount == 3)
        #expect(rig.engine.statistics.drops[.transmitted, .linkDown] == 3)
      }
    }
  }
}
