import LibeventConcurrency
import NetdevTesting
import Testing
import Virtio

@testable import VirtioDevice

/// Counts interrupts.
final class TestLine: InterruptLine {
  private(set) var count = 0
  func raise() { count += 1 }
}

/// A device's queue pair with a raw driver opposite: the driver's memory, both rings, the engine on a hand-turned loop.
///
/// Memory is one block: the rings first, then buffers that a test hands out in order. The driver names it by addresses
/// from `Rig.guestBase` on, not by pointers.
@safe final class Rig {
  static let guestBase: UInt64 = 0x4000_0000

  let hand: HandTurnedLoop
  let device: VirtioNetDevice
  let engine: QueuePairEngine
  let receiveLine = TestLine()
  let transmitLine = TestLine()
  let receive: LyingDriverRing
  let transmit: LyingDriverRing

  let block: UnsafeMutableRawPointer
  private let size: Int
  private var nextBuffer: Int
  private var nextReceive = 0
  private var nextTransmit = 0

  init(
    backend: any NetworkBackend = LoopbackBackend(), queueSize: Int = 64, features: FeatureSet? = nil,
    startIndex: UInt16 = 0, budget: Int = 64, pair: Int = 0, hand: HandTurnedLoop? = nil,
    configuration: VirtioNetDevice.Configuration = VirtioNetDevice.Configuration(), memorySize: Int = 16 << 20,
    otherRegions: [GuestRegion] = [], start: Bool = true
  ) throws {
    let hand = try hand ?? HandTurnedLoop.withEvents()
    let size = memorySize
    let whole = UnsafeMutableRawPointer.allocate(byteCount: size + 2 * Self.fence, alignment: 4096)
    unsafe whole.initializeMemory(as: UInt8.self, repeating: 0xEE, count: size + 2 * Self.fence)
    let block = unsafe whole + Self.fence
    let half = 1 << 20
    let receive = unsafe try LyingDriverRing(size: queueSize, block: block, startIndex: startIndex)
    let transmit = unsafe try LyingDriverRing(size: queueSize, block: block + half, startIndex: startIndex)
    device = VirtioNetDevice(backend: backend, configuration: configuration)
    device.setStatus([.acknowledge, .driver])
    // The rings of this rig are split ones.
    device.setDriverFeatures(features ?? device.offeredFeatures.subtracting([.ringPacked, .inOrder]))
    device.setStatus([.acknowledge, .driver, .featuresOK])
    try #require(device.status.contains(.featuresOK))
    device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    try device.prepare(pair: pair)
    var receiveRing = try unsafe RingAreas(.split, size: queueSize, block: block)
    receiveRing.startIndex = startIndex
    var transmitRing = try unsafe RingAreas(.split, size: queueSize, block: block + half)
    transmitRing.startIndex = startIndex
    engine = try device.makeEngine(
      pair: pair, loop: hand.loop, receive: receiveRing, transmit: transmitRing,
      memory: GuestMemory(
        [unsafe GuestRegion(address: Self.guestBase, length: UInt64(size), host: block)] + otherRegions),
      receiveLine: receiveLine, transmitLine: transmitLine, budget: budget)
    self.hand = hand
    self.receive = receive
    self.transmit = transmit
    unsafe self.block = block
    self.size = size
    nextBuffer = 2 * half
    if start { try engine.start() }
  }

  deinit {
    engine.stop()
    unsafe (block - Self.fence).deallocate()
  }

  /// Bytes before and behind the driver's memory that nobody may write.
  private static let fence = 65536

  /// Whether nothing has been written just outside the driver's memory.
  var isFenceIntact: Bool {
    [-Self.fence, size].allSatisfy { offset in
      unsafe UnsafeRawBufferPointer(start: block + offset, count: Self.fence).allSatisfy { $0 == 0xEE }
    }
  }

  // MARK: Memory

  /// A place for `count` bytes in the driver's memory.
  func allocate(_ count: Int) -> UInt64 {
    // Aligned by 8 and then moved by 2, so that headers are at odd places as well.
    if nextBuffer + count + 64 > size { nextBuffer = 2 << 20 }
    let place = nextBuffer
    nextBuffer += (count + 23) & ~7
    return Self.guestBase + UInt64(place + 2)
  }

  func pointer(_ address: UInt64) -> UnsafeMutableRawPointer { unsafe block + Int(address - Self.guestBase) }

  func store(_ bytes: [UInt8], at address: UInt64) {
    unsafe bytes.withUnsafeBytes { source in
      guard let start = source.baseAddress else { return }
      unsafe pointer(address).copyMemory(from: start, byteCount: source.count)
    }
  }

  func load(_ count: Int, at address: UInt64) -> [UInt8] {
    unsafe Array(UnsafeRawBufferPointer(start: pointer(address), count: count))
  }

  // MARK: Honest chains

  /// Offers a chain of buffers in descriptors of the ring's table; where they are.
  private static func offer(
    _ buffers: [(address: UInt64, length: Int)], isWritable: Bool, on ring: LyingDriverRing, from next: inout Int
  ) -> UInt16 {
    let size = Int(ring.layout.size)
    let places = buffers.indices.map { (next + $0) % size }
    next = (next + buffers.count) % size
    for (index, buffer) in buffers.enumerated() {
      let isLast = index == buffers.count - 1
      let flags =
        (isWritable ? LyingDriverRing.Descriptor.isWritable : 0) | (isLast ? 0 : LyingDriverRing.Descriptor.hasNext)
      ring.write(
        LyingDriverRing.Descriptor(
          address: buffer.address, length: UInt32(buffer.length), flags: flags,
          next: isLast ? 0 : UInt16(places[index + 1])),
        at: places[index])
    }
    let head = UInt16(places.first ?? 0)
    ring.offer(head)
    ring.publish()
    return head
  }

  /// Offers a receive buffer in pieces of these lengths.
  @discardableResult func offerReceive(_ lengths: [Int]) -> Buffer {
    let pieces = lengths.map { (address: allocate($0), length: $0) }
    let head = Self.offer(pieces, isWritable: true, on: receive, from: &nextReceive)
    return Buffer(head: head, pieces: pieces)
  }

  /// Offers a frame in pieces of these lengths, header included; the last piece takes what is left.
  @discardableResult func offerTransmit(
    header: [UInt8] = [UInt8](repeating: 0, count: 12), frame: [UInt8], pieces lengths: [Int] = []
  ) -> Buffer {
    let bytes = header + frame
    var pieces: [(address: UInt64, length: Int)] = []
    var done = 0
    for length in lengths + [bytes.count - lengths.reduce(0, +)] {
      let address = allocate(length)
      store(Array(bytes[done..<(done + length)]), at: address)
      pieces.append((address, length))
      done += length
    }
    let head = Self.offer(pieces, isWritable: false, on: transmit, from: &nextTransmit)
    return Buffer(head: head, pieces: pieces)
  }

  /// Writes a descriptor into a table somewhere in the driver's memory, as indirect ones are.
  func write(_ descriptor: LyingDriverRing.Descriptor, at index: Int, table: UInt64) {
    unsafe LyingDriverRing.write(descriptor, to: pointer(table) + 16 * index)
  }

  /// What was offered.
  struct Buffer {
    let head: UInt16
    let pieces: [(address: UInt64, length: Int)]
    var length: Int { pieces.reduce(0) { $0 + $1.length } }
  }

  /// The first bytes of what was written to a buffer.
  func contents(_ buffer: Buffer, _ count: Int) -> [UInt8] {
    Array(buffer.pieces.flatMap { load($0.length, at: $0.address) }.prefix(count))
  }

  /// Kicks both rings and turns until the loop would sleep.
  func serve() {
    engine.kickTransmit()
    engine.kickReceive()
    hand.settle()
  }
}

/// A plain header in `buffers` receive buffers, as bytes.
func plainHeader(buffers: UInt16 = 1) -> [UInt8] {
  [UInt8](repeating: 0, count: 10) + [UInt8(truncatingIfNeeded: buffers), UInt8(truncatingIfNeeded: buffers >> 8)]
}

/// Bytes that differ from place to place and from seed to seed; up to 60 000.
func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
  let start = abs(seed) % 4096
  return Array(patternSource[start..<(start + count)])
}

private let patternSource: [UInt8] = (0..<65536).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ $0 >> 5 &+ 1) }

/// Compares without printing thousands of bytes: the first difference says enough.
func expectSame(_ found: [UInt8], _ wanted: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) {
  if found == wanted { return }
  let difference = zip(found, wanted).enumerated().first { $0.element.0 != $0.element.1 }?.offset
  #expect(difference == nil, sourceLocation: sourceLocation)
  #expect(found.count == wanted.count, sourceLocation: sourceLocation)
}
