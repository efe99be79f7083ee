import CNetdevSystem
import CTestSupport
import Glibc
import PacketFormats
import Synchronization
import NetdevTesting
import TestSupport
import Testing
import Virtio

@testable import VirtioDevice

/// An Ethernet frame of an experimental type (IEEE 802 local experimental 0x88B5), which nobody answers.
func frame(_ count: Int, seed: Int = 0) -> [UInt8] {
  [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xB5] + pattern(count - 14, seed: seed)
}

/// The other end of a TAP wire: sees and sends whole frames of the interface.
struct Wire: ~Copyable {
  let descriptor: CInt

  init(_ interface: String) throws {
    descriptor = openPacketSocket(interface)
    try #require(descriptor >= 0)
  }

  deinit { close(descriptor) }

  /// The next of our frames, or nil; others (the kernel's own neighbour discovery) are passed over.
  func receive() -> [UInt8]? {
    var room = [UInt8](repeating: 0, count: 70_000)
    while true {
      let count = unsafe read(descriptor, &room, room.count)
      guard count >= 0 else { return nil }
      if count >= 14, room[12] == 0x88, room[13] == 0xB5 { return Array(room.prefix(count)) }
    }
  }

  func send(_ frame: [UInt8]) { #expect(unsafe write(descriptor, frame, frame.count) == frame.count) }
}

extension Rig {
  /// The next received frame of ours, without its header, from buffers offered in `buffers`; used buffers are taken from it.
  func takeFrame(from buffers: inout [Rig.Buffer]) -> [UInt8]? {
    while let first = receive.takeUsed() {
      var bytes = contents(buffers.removeFirst(), Int(first.written))
      let count = Int(bytes[10]) | Int(bytes[11]) << 8
      for _ in 1..<max(count, 1) {
        guard let next = receive.takeUsed() else { return nil }
        bytes += contents(buffers.removeFirst(), Int(next.written))
      }
      // The kernel's own discovery, of IPv6, is passed over.
      if bytes.count >= 26, [[0x88, 0xB5], [8, 0]].contains(bytes[24..<26]) { return Array(bytes.dropFirst(12)) }
    }
    return nil
  }
}

extension TapBackendTests {
  @Suite struct Frames {
    @Test func `what the driver transmits the kernel sees, byte by byte, whatever pieces it is in`() throws {
      try NetworkNamespace.run {
        let backend = try TapBackend("tap0")
        #expect(backend.mtu == 1500)
        let wire = try Wire("tap0")
        let rig = try Rig(backend: backend)
        for (index, pieces) in [[], [12], [5], [12, 14], [3, 3, 3, 3, 3, 3], [0, 12, 0]].enumerated() {
          for length in [15, 60, 777, 1514] {
            let frame = frame(length, seed: index)
            let sent = rig.offerTransmit(frame: frame, pieces: pieces)
            rig.serve()
            let used = rig.transmit.takeUsed()
            #expect(used?.id == UInt32(sent.head) && used?.written == 0)
            expectSame(wire.receive() ?? [], frame)
          }
        }
        #expect(rig.engine.statistics.transmittedFrames == 24)
        #expect(rig.engine.statistics.drops.total == 0)
      }
    }

    @Test func `what the kernel sends on the interface the driver receives, in one buffer or in several`() throws {
      try NetworkNamespace.run {
        let backend = try TapBackend("tap0")
        #expect(setMTU("tap0", 9000) == 0)
        let wire = try Wire("tap0")
        backend.close()
        // The name is free only when the last descriptor has gone.
        #expect(!interfaceExists("tap0"))
        #expect(makePersistentTap("tap1", multiQueue: false) == 0)
        #expect(setMTU("tap1", 9000) == 0)
        let large = try TapBackend("tap1")
        #expect(large.mtu == 9000)
        let rig = try Rig(backend: large)
        let other = try Wire("tap1")
        var buffers = (0..<60).map { _ in rig.offerReceive([1000]) }
        rig.serve()
        for length in [60, 988, 989, 1500, 9000, 9014, 15] {
          other.send(frame(length, seed: length))
          var received: [UInt8]?
          #expect(
            rig.hand.wait {
              received = rig.takeFrame(from: &buffers); return received != nil
            })
          expectSame(received ?? [], frame(length, seed: length))
        }
        #expect(rig.engine.statistics.drops.total == 0)
        withExtendedLifetime(wire) {}
      }
    }

    @Test func `with no buffers, frames wait in the kernel, the loop sleeps, and a kick is asked for`() throws {
      try NetworkNamespace.run {
        let rig = try Rig(backend: try TapBackend("tap0"))
        let wire = try Wire("tap0")
        rig.serve()
        for seed in 0..<5 { wire.send(frame(100, seed: seed)) }
        usleep(20_000)
        // The frames are there and cannot be read: the source must be silent now, or this would never settle.
        for _ in 0..<20 { rig.hand.poll() }
        let services = rig.engine.statistics.services
        for _ in 0..<50 { rig.hand.poll() }
        #expect(rig.engine.statistics.services == services)
        var buffers: [Rig.Buffer] = []
        var received = 0
        var first = true
        while received < 5, buffers.count < 64 {
          buffers.append(rig.offerReceive([1526]))
          if first { #expect(rig.wantsReceiveKick) }
          first = false
          rig.engine.kickReceive()
          rig.hand.settle()
          if let bytes = rig.takeFrame(from: &buffers) {
            expectSame(bytes, frame(100, seed: received))
            received += 1
          }
        }
        #expect(received == 5)
        // Fed again, it listens again.
        buffers += (0..<8).map { _ in rig.offerReceive([1526]) }
        rig.serve()
        wire.send(frame(200, seed: 9))
        var bytes: [UInt8]?
        #expect(
          rig.hand.wait {
            bytes = rig.takeFrame(from: &buffers); return bytes != nil
          })
        expectSame(bytes ?? [], frame(200, seed: 9))
      }
    }

    @Test func `an idle device is not called, and takes no turns`() throws {
      try NetworkNamespace.run {
        let rig = try Rig(backend: try TapBackend("tap0"))
        for _ in 0..<8 { rig.offerReceive([1526]) }
        rig.serve()
        // Neighbour discovery of the kernel's passes in the first seconds; then there is silence.
        #expect(
          rig.hand.wait(within: .seconds(10)) {
            let before = rig.engine.statistics.services
            for _ in 0..<200 {
              rig.hand.poll()
              usleep(1000)
            }
            return rig.engine.statistics.services == before
          })
        #expect(rig.hand.turn() == false)
      }
    }

    @Test func `a frame for an interface that is down is dropped and counted, one too short refused`() throws {
      try NetworkNamespace.run {
        let rig = try Rig(backend: try TapBackend("tap0", bringUp: false))
        rig.offerTransmit(frame: frame(60))
        rig.serve()
        #expect(rig.transmit.takeUsed()?.written == 0)
        #expect(rig.engine.statistics.drops[.linkDown] == 1)
        #expect(unsafe netdev_interface_set_up("tap0", true) == 0)
        rig.offerTransmit(frame: pattern(13))
        rig.serve()
        #expect(rig.transmit.takeUsed()?.written == 0)
        #expect(rig.engine.statistics.drops[.refused] == 1)
        rig.offerTransmit(frame: frame(60))
        rig.serve()
        #expect(rig.engine.statistics.transmittedFrames == 1)
      }
    }

    @Test func `a frame longer than its buffer is dropped whole without mergeable buffers`() throws {
      try NetworkNamespace.run {
        let rig = try Rig(backend: try TapBackend("tap0"), features: [.version1, .mac])
        let wire = try Wire("tap0")
        var buffers = (0..<20).map { _ in rig.offerReceive([512]) }
        rig.serve()
        wire.send(frame(501))
        wire.send(frame(500))
        var bytes: [UInt8]?
        #expect(
          rig.hand.wait {
            bytes = rig.takeFrame(from: &buffers); return bytes != nil
          })
        expectSame(bytes ?? [], frame(500))
        #expect(rig.engine.statistics.drops[.receiveBufferTooSmall] == 1)
      }
    }

    @Test func `a flow is received on the pair that it is transmitted on, and on no disabled pair`() throws {
      let log = FlowLog()
      try NetworkNamespace.run {
        let backend = try TapBackend("tap0", queues: 4, observer: log)
        let hand = try HandTurnedLoop.withEvents()
        var configuration = VirtioNetDevice.Configuration()
        configuration.queuePairs = 4
        let rigs = try (0..<4).map { try Rig(backend: backend, pair: $0, hand: hand, configuration: configuration) }
        let wire = try Wire("tap0")
        for rig in rigs { for _ in 0..<50 { rig.offerReceive([1526]) } }
        for rig in rigs { rig.serve() }
        // The kernel learns a flow's queue from what is transmitted on it.
        for flow in 0..<16 { rigs[flow % 4].offerTransmit(frame: udp(flow: flow, toKernel: true)) }
        for rig in rigs { rig.serve() }
        for _ in 0..<3 { for flow in 0..<16 { wire.send(udp(flow: flow, toKernel: false)) } }
        #expect(hand.wait { log.count(.received) >= 48 })
        for flow in 0..<16 { #expect(log.queues(flow) == [flow % 4], "flow \(flow)") }

        // Disabled, pair 3 gets nothing any more; its flows go elsewhere.
        rigs[3].engine.isEnabled = false
        let queue = try #require(backend.state.withLock { $0.queues.last })
        let detached = NETDEV_TAP_DETACHED
        #expect(hand.wait { netdev_tap_differences(queue.descriptor, true, 12) == detached })
        let before = rigs[3].engine.statistics.receivedFrames
        for flow in 0..<16 { wire.send(udp(flow: flow, toKernel: false)) }
        #expect(hand.wait { log.count(.received) >= 64 })
        #expect(rigs[3].engine.statistics.receivedFrames == before)
      }
    }

    @Test func `after stop and close no descriptor is open and nothing more is written`() throws {
      let before = settledDescriptors(of: "/dev/net/tun")
      try NetworkNamespace.run {
        let backend = try TapBackend("tap0", queues: 2)
        let wire = try Wire("tap0")
        do {
          let rig = try Rig(backend: backend)
          for _ in 0..<8 { rig.offerReceive([1526]) }
          rig.serve()
          let bases = rig.engine.stop()
          #expect(rig.engine.stop() == bases)
          wire.send(frame(100))
          rig.engine.kickReceive()
          for _ in 0..<10 { rig.hand.poll() }
          #expect(Int(bases.receive) == rig.receive.usedCount)
          // The same pair again, as after a reset of the device; and the back-end closed under it.
          let again = try Rig(backend: backend)
          backend.close()
          #expect(come(to: before + 1, of: "/dev/net/tun"))
          again.offerTransmit(frame: frame(99))
          again.serve()
          #expect(again.engine.statistics.transmittedFrames == 1)
        }
        #expect(come(to: before, of: "/dev/net/tun"))
        #expect(throws: BackendError.self) {
          _ = try backend.makePort(
            PortRequest(
              pair: 0, loop: try HandTurnedLoop.withEvents().loop, format: FrameFormat(.version1),
              macAddress: MACAddress(rawValue: 2)))
        }
      }
    }
  }

}

/// A UDP frame of a flow, between the device's side and the kernel's.
private func udp(flow: Int, toKernel: Bool) -> [UInt8] {
  let device: [UInt8] = [10, 9, 0, 1]
  let kernel: [UInt8] = [10, 9, 0, 2]
  let port = [UInt8(0x40 + flow), 0x10]
  let service: [UInt8] = [0x13, 0x88]
  var ip: [UInt8] = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0] + (toKernel ? device + kernel : kernel + device)
  var sum = 0
  for index in stride(from: 0, to: 20, by: 2) { sum += Int(ip[index]) << 8 | Int(ip[index + 1]) }
  sum = (sum & 0xFFFF) + sum >> 16
  ip[10] = UInt8(~sum >> 8 & 0xFF)
  ip[11] = UInt8(~sum & 0xFF)
  let ports = toKernel ? port + service : service + port
  return [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0] + ip + ports + [0, 12, 0, 0, 1, 2, 3, 4]
}

/// Which flows were received on which queue.
private final class FlowLog: FrameObserver {
  private let seen = Mutex<(frames: [FrameDirection: Int], queues: [UInt8: Set<Int>])>(([:], [:]))

  func observe(queue: Int, direction: FrameDirection, length: Int, prefix: RawSpan) {
    guard length == 46, prefix.byteCount == 46, prefix.unsafeByte(at: 12) == 8 else { return }
    // The flow's own port is the destination of what is received.
    let flow = prefix.unsafeByte(at: direction == .received ? 36 : 34) &- 0x40
    seen.withLock {
      $0.frames[direction, default: 0] += 1
      if direction == .received { $0.queues[flow, default: []].insert(queue) }
    }
  }

  func count(_ direction: FrameDirection) -> Int { seen.withLock { $0.frames[direction] ?? 0 } }
  func queues(_ flow: Int) -> Set<Int> { seen.withLock { $0.queues[UInt8(flow)] ?? [] } }
}

extension RawSpan {
  fileprivate func unsafeByte(at offset: Int) -> UInt8 { unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self) }
}
