import LibeventConcurrency
import NetdevTesting
import PacketFormats
import Testing
import Virtio

@testable import VirtioDevice

/// The control virtqueue, device side: whatever the driver puts there is answered, once, and a good command behind it works (VIRTIO
/// 1.4 §5.1.9.5, §2.7).
@Suite struct ControlQueueTests {
  /// A raw driver's control queue, and the device opposite. The ring has a megabyte, the buffers another.
  @safe private final class Bench {
    static let base: UInt64 = 0x4000_0000
    static let size = 16
    private static let bytes = 2 << 20

    let hand: HandTurnedLoop
    let device: VirtioNetDevice
    let line = TestLine()
    let ring: LyingDriverRing
    private(set) var failures = 0
    /// What the transport would be told, answered at once unless somebody wants to answer himself.
    private(set) var performed: [NetControlCommand?] = []
    var answers: [(Bool) -> Void] = []
    var answersItself = true
    private var queue: ServedControlQueue?
    private let block: UnsafeMutableRawPointer
    private var nextDescriptor = 0
    private var nextBuffer = 1 << 20

    init(_ features: FeatureSet? = nil, pairs: Int = 4) throws {
      hand = try HandTurnedLoop.withEvents()
      unsafe block = .allocate(byteCount: Self.bytes, alignment: 4096)
      unsafe block.initializeMemory(as: UInt8.self, repeating: 0xEE, count: Self.bytes)
      var configuration = VirtioNetDevice.Configuration()
      configuration.pairSwitching = .controlQueue
      device = VirtioNetDevice(backend: LoopbackBackend(pairs: pairs), configuration: configuration)
      device.setStatus([.acknowledge, .driver])
      device.setDriverFeatures(features ?? device.offeredFeatures.subtracting([.ringPacked, .inOrder, .eventIndex]))
      device.setStatus([.acknowledge, .driver, .featuresOK])
      device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
      let agreed = try #require(device.negotiatedFeatures)
      ring = try unsafe LyingDriverRing(size: Self.size, block: block)
      queue = try ServedControlQueue(
        loop: hand.loop, areas: unsafe RingAreas(.split, size: Self.size, block: block),
        memory: GuestMemory([unsafe GuestRegion(address: Self.base, length: UInt64(Self.bytes), host: block)]),
        features: agreed, line: line, onFailure: { [weak self] in self?.failures += 1 }
      ) { [weak self] command, answer in
        guard let self else { return }
        self.performed.append(command)
        if self.answersItself {
          answer(command.map { self.device.perform($0) } ?? false)
        } else {
          self.answers.append(answer)
        }
      }
    }

    deinit {
      queue?.stop()
      unsafe block.deallocate()
    }

    func stop() { queue?.stop() }

    func place(_ bytes: [UInt8]) -> UInt64 {
      let address = Self.base + UInt64(nextBuffer)
      for (position, byte) in bytes.enumerated() {
        unsafe block.storeBytes(of: byte, toByteOffset: nextBuffer + position, as: UInt8.self)
      }
      nextBuffer += (bytes.count + 64) & ~7
      return address
    }

    func byte(at address: UInt64) -> UInt8 {
      unsafe block.load(fromByteOffset: Int(address - Self.base), as: UInt8.self)
    }

    /// Offers a chain of these pieces, and shows it.
    func offer(_ pieces: [(address: UInt64, length: UInt32, isWritable: Bool)]) {
      let head = nextDescriptor
      for (number, piece) in pieces.enumerated() {
        let isLast = number == pieces.count - 1
        let next = (head + number + 1) % Self.size
        let flags =
          (piece.isWritable ? LyingDriverRing.Descriptor.isWritable : 0)
          | (isLast ? 0 : LyingDriverRing.Descriptor.hasNext)
        ring.write(
          .init(address: piece.address, length: piece.length, flags: flags, next: UInt16(next)),
          at: (head + number) % Self.size)
      }
      nextDescriptor = (head + pieces.count) % Self.size
      ring.offer(UInt16(head))
      ring.publish()
    }

    func kick() {
      queue?.kick()
      hand.settle()
    }

    /// Sends a command as an honest driver does; its answer, or nil when there is none.
    func send(_ bytes: [UInt8], splitAt split: Int = 2) -> UInt8? {
      let (address, room) = (place(bytes), place([0x77]))
      let split = min(split, bytes.count)
      var pieces: [(address: UInt64, length: UInt32, isWritable: Bool)] = []
      if split > 0 { pieces.append((address, UInt32(split), false)) }
      if bytes.count > split { pieces.append((address + UInt64(split), UInt32(bytes.count - split), false)) }
      pieces.append((room, 1, true))
      offer(pieces)
      kick()
      guard let used = ring.takeUsed() else { return nil }
      #expect(used.written == 1)
      return byte(at: room)
    }

    func send(_ command: NetControlCommand) -> UInt8? { send(command.header + command.payload) }
  }

  private static let station = MACAddress(2, 0, 0, 0, 0, 9)
  private static let group = MACAddress(1, 0, 0x5e, 0, 0, 9)

  @Test func `every command that was negotiated is done and acknowledged, with one byte and one interrupt`() throws {
    let bench = try Bench()
    let own = bench.device.macAddress
    let generation = bench.device.generation
    for which in NetControlCommand.ReceiveSwitch.allCases { #expect(bench.send(.receive(which, true)) == 0) }
    #expect(bench.device.receiveFilter.switches.count == 6)
    #expect(bench.send(.receive(.promiscuous, false)) == 0)
    #expect(bench.send(.addressTable(unicast: [Self.station], multicast: [Self.group])) == 0)
    #expect(bench.device.receiveFilter.unicast == [Self.station])
    #expect(bench.send(.address(Self.station)) == 0)
    #expect(bench.device.macAddress == Self.station)
    #expect(bench.device.receiveFilter.station == Self.station)
    #expect(try NetConfig(reading: bench.device, features: .mac).macAddress == Self.station)
    #expect(bench.device.generation != generation)
    #expect(bench.send(.vlan(7, isAdded: true)) == 0)
    #expect(bench.device.receiveFilter.vlans == [7])
    #expect(bench.send(.vlan(7, isAdded: false)) == 0)
    #expect(bench.device.receiveFilter.vlans == [])
    #expect(bench.send(.queuePairs(4)) == 0)
    #expect(bench.device.activePairs == 4)
    #expect((0..<4).allSatisfy { bench.device.serves(pair: $0) })
    #expect(bench.send(.queuePairs(2)) == 0)
    #expect((0..<4).map { bench.device.serves(pair: $0) } == [true, true, false, false])
    #expect(bench.line.count == 13)
    bench.device.reset()
    #expect(bench.device.macAddress == own)
    #expect(bench.device.receiveFilter == ReceiveFilter(station: own))
    #expect(bench.device.controlQueueIndex == nil)
  }

  @Test func `an announcement is asked for by the status, once, and acknowledged`() throws {
    let bench = try Bench()
    var notified = 0
    nonisolated(unsafe) let count = UnsafeMutablePointer<Int>.allocate(capacity: 1)
    unsafe count.initialize(to: 0)
    defer { unsafe count.deallocate() }
    bench.device.setConfigurationLine { unsafe count.pointee += 1 }
    #expect(bench.device.requestAnnouncement())
    unsafe notified = count.pointee
    #expect(notified == 1)
    #expect(try NetConfig(reading: bench.device, features: .status).status == [.linkUp, .announce])
    #expect(bench.send(.announced) == 0)
    #expect(try NetConfig(reading: bench.device, features: .status).status == .linkUp)
    #expect(!bench.device.awaitsAnnouncement)
    // Once more is harmless.
    #expect(bench.send(.announced) == 0)
    // A driver that does not do that is not asked.
    let other = try Bench([.version1, .status, .ctrlVQ])
    #expect(!other.device.requestAnnouncement())
    #expect(other.send(.announced) == 1)
  }

  @Test func `Device rule 16: what was not negotiated, cannot be, or is no command, is answered and changes nothing`()
    throws
  {
    let bench = try Bench([.version1, .mac, .ctrlVQ, .ctrlRX])
    let filter = bench.device.receiveFilter
    let wrong: [[UInt8]] = [
      [0, 2, 1], [1, 1, 2, 0, 0, 0, 0, 1], [2, 0, 1, 0], [3, 0], [4, 0, 1, 0], [4, 0, 2, 0], [5, 0], [0, 0], [0],
      [9, 9, 9],
      [1, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 7],
    ]
    for bytes in wrong { #expect(bench.send(bytes) == 1, "\(bytes)") }
    #expect(bench.device.receiveFilter == filter)
    #expect(bench.send(.receive(.promiscuous, false)) == 0)
    let rich = try Bench()
    for bytes: [UInt8] in [
      [4, 0, 0, 0], [4, 0, 5, 0], [4, 0, 0xff, 0xff], [2, 0, 0, 0x10], [1, 1, 0, 0, 0, 0, 0, 0],
      [1, 1, 1, 0, 0, 0, 0, 0],
    ] {
      #expect(rich.send(bytes) == 1, "\(bytes)")
    }
    #expect(rich.device.activePairs == 1)
    #expect(rich.send(.queuePairs(4)) == 0)
  }

  @Test func `a command may lie in pieces of any size`() throws {
    let bench = try Bench()
    for split in 0...8 {
      #expect(bench.send([1, 1, 2, 0, 0, 0, 0, UInt8(split)], splitAt: split) == 0)
      #expect(bench.device.macAddress == MACAddress(2, 0, 0, 0, 0, UInt8(split)))
    }
    let address = bench.place([0, 0, 0])
    let room = bench.place([0x77])
    bench.offer((0..<3).map { (address + UInt64($0), 1, false) } + [(room, 1, true)])
    bench.kick()
    #expect(bench.ring.takeUsed()?.written == 1)
    #expect(bench.byte(at: room) == 0)
  }

  @Test
  func `Device rule 18: chains without room for an answer, or without anything, come back, and what follows works`()
    throws
  {
    let bench = try Bench()
    bench.offer([(bench.place([0, 0, 0]), 3, false)])
    bench.kick()
    #expect(bench.ring.takeUsed()?.written == 0)
    bench.offer([(bench.place([0]), 1, true)])
    bench.kick()
    #expect(bench.ring.takeUsed()?.written == 1)
    // Outside the driver's memory, writable before readable, and a loop.
    bench.offer([(0x10, 3, false), (bench.place([0]), 1, true)])
    bench.kick()
    #expect(bench.ring.takeUsed()?.written == 0)
    bench.offer([(bench.place([0]), 1, true), (bench.place([0, 0, 1]), 3, false)])
    bench.kick()
    #expect(bench.ring.takeUsed()?.written == 0)
    #expect(bench.failures == 0)
    #expect(bench.send(.receive(.promiscuous, false)) == 0)
  }

  @Test func `Device rule 1: an index that no driver can have reached stops the queue, and the device is told once`()
    throws
  {
    let bench = try Bench()
    bench.ring.publish(index: 17)
    bench.kick()
    bench.kick()
    #expect(bench.failures == 1)
    #expect(bench.performed.isEmpty)
  }

  @Test func `one command is done after the other, and none when the queue has stopped`() throws {
    let bench = try Bench()
    bench.answersItself = false
    let rooms = (0..<3).map { _ in bench.place([0x77]) }
    for (number, room) in rooms.enumerated() {
      bench.offer([(bench.place([0, 0, UInt8(number & 1)]), 3, false), (room, 1, true)])
    }
    bench.kick()
    bench.kick()
    #expect(bench.performed.count == 1)
    bench.answers[0](true)
    // Twice is once.
    bench.answers[0](false)
    bench.hand.settle()
    #expect(bench.performed.count == 2)
    #expect(rooms.map { bench.byte(at: $0) } == [0, 0x77, 0x77])
    bench.stop()
    bench.answers[1](true)
    bench.hand.settle()
    #expect(rooms.map { bench.byte(at: $0) } == [0, 0x77, 0x77])
    #expect(bench.ring.usedCount == 1)
  }

  // MARK: What passes

  private func frame(to destination: MACAddress, vlan: UInt16? = nil, count: Int = 60) -> [UInt8] {
    var bytes = (0..<6).map { destination[$0] } + [2, 0, 0, 0, 0, 1]
    if let vlan { bytes += [0x81, 0, UInt8(vlan >> 8), UInt8(vlan & 0xff)] }
    bytes += [8, 0]
    return Array((bytes + [UInt8](repeating: 0, count: 60)).prefix(count))
  }

  private func passes(_ filter: ReceiveFilter, _ bytes: [UInt8]) -> Bool { unsafe filter.admits(bytes.span.bytes) }

  @Test func `what passes follows from switches, tables and VLANs`() {
    let own = MACAddress(2, 0, 0, 0, 0, 1)
    var filter = ReceiveFilter(station: own)
    let frames = [own, Self.station, Self.group, .broadcast].map { frame(to: $0) }
    func pass() -> [Bool] { frames.map { passes(filter, $0) } }
    #expect(pass() == [true, true, true, true])
    filter.switches = []
    #expect(pass() == [true, false, false, true])
    filter.unicast = [Self.station]
    #expect(pass() == [true, true, false, true])
    filter.multicast = [Self.group]
    #expect(pass() == [true, true, true, true])
    filter.switches = [.noBroadcast, .noMulticast, .noUnicast]
    #expect(pass() == [false, false, false, false])
    (filter.unicast, filter.multicast) = ([], [])
    filter.switches = [.allUnicast]
    #expect(pass() == [true, true, false, true])
    filter.switches = [.allMulticast]
    #expect(pass() == [true, false, true, true])
    // Tables that were too long stand for everything.
    filter.switches = []
    (filter.unicast, filter.multicast) = (nil, nil)
    #expect(pass() == [true, true, true, true])
    // No promiscuous switch beside another means less.
    filter.switches = [.promiscuous, .noUnicast]
    #expect(pass() == [true, true, true, true])
  }

  @Test func `of a tagged frame its VLAN counts, unless it is none, and a frame that is cut short does not pass`() {
    let own = MACAddress(2, 0, 0, 0, 0, 1)
    var filter = ReceiveFilter(station: own)
    filter.switches = []
    #expect(passes(filter, frame(to: own, vlan: 7)))
    filter.vlans = []
    #expect(!passes(filter, frame(to: own, vlan: 7)))
    #expect(passes(filter, frame(to: own)))
    #expect(passes(filter, frame(to: own, vlan: 0)))
    filter.vlans = [7]
    #expect(passes(filter, frame(to: own, vlan: 7)))
    // Priority and mark do not count.
    #expect(passes(filter, frame(to: own, vlan: 0xF007)))
    #expect(!passes(filter, frame(to: own, vlan: 8)))
    for count in 0..<14 { #expect(!passes(filter, frame(to: own, count: count))) }
    #expect(passes(filter, frame(to: own, count: 14)))
  }

  @Test func `the kernel is told what it can tell, and nothing where that would be wrong`() {
    let own = MACAddress(2, 0, 0, 0, 0, 1)
    var filter = ReceiveFilter(station: own)
    #expect(TapFilter(filter) == .everything)
    filter.switches = []
    #expect(TapFilter(filter) != .everything)
    filter.switches = [.allUnicast]
    #expect(TapFilter(filter) == .everything)
    filter.switches = []
    filter.unicast = nil
    #expect(TapFilter(filter) == .everything)
    filter.unicast = Set((0..<300).map { MACAddress(2, 0, 0, 0, 1, UInt8($0 & 0xff)) })
    #expect(TapFilter(filter) == .everything)
  }
}
