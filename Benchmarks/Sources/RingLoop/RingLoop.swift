public import Virtio

/// What a loop over rings is: the format, whether buffers are used in order, and which of the two ways.
public struct RingLoopSetting: Sendable {
  /// Of both rings.
  public var format: RingFormat
  /// IN_ORDER was negotiated.
  public var inOrder: Bool
  /// Frames that the device takes one by one and releases; else frames that it carries from the transmit ring to the receive
  /// ring.
  public var transmits: Bool

  /// A setting.
  public init(_ format: RingFormat, inOrder: Bool, transmits: Bool) {
    self.format = format
    self.inOrder = inOrder
    self.transmits = transmits
  }
}

/// Memory for a transmit ring, a receive ring and their buffers.
public final class RingLoopMemory {
  /// Descriptors of each ring.
  public static let size = 256
  /// Bytes of all buffers: 64 frames, then 64 buffers to receive into.
  public static let bufferBytes = 128 * 2048
  /// Bytes of each ring.
  public static let blockBytes = 16_384
  /// The transmit ring.
  public let transmit = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: 64)
  /// The receive ring.
  public let receive = UnsafeMutableRawPointer.allocate(byteCount: blockBytes, alignment: 64)
  /// The buffers.
  public let buffers = UnsafeMutableRawPointer.allocate(byteCount: bufferBytes, alignment: 4096)

  /// Zeroed.
  public init() {
    for block in [transmit, receive] { block.initializeMemory(as: UInt8.self, repeating: 0, count: Self.blockBytes) }
    buffers.initializeMemory(as: UInt8.self, repeating: 0, count: Self.bufferBytes)
  }

  deinit {
    transmit.deallocate()
    receive.deallocate()
    buffers.deallocate()
  }
}

/// What went round.
public struct RingLoopCounts: Equatable, Sendable {
  /// Packets.
  public var carried: UInt64 = 0
  /// Tokens and lengths added up.
  public var sum: UInt64 = 0
  /// Kicks and interrupts that were wanted.
  public var notified: UInt64 = 0

  /// Counts.
  public init(carried: UInt64 = 0, sum: UInt64 = 0, notified: UInt64 = 0) {
    self.carried = carried
    self.sum = sum
    self.notified = notified
  }
}

/// Bursts through the rings as the driver and the engine make them: the functions that they call, in their order.
public protocol RingLoop: AnyObject {
  /// So far.
  var counts: RingLoopCounts { get }
  /// One burst, of no more than 64; how many came round.
  func turn(burst: Int) throws -> Int
  /// Bursts until so many packets are round.
  func run(burst: Int, packets: UInt64) throws
}

/// The loop of a setting.
public func makeRingLoop(_ setting: RingLoopSetting, _ memory: RingLoopMemory) throws -> any RingLoop {
  switch setting.format {
  case .split: try SplitLoop(setting, memory)
  case .packed: try PackedLoop(setting, memory)
  }
}

/// Both sides of both rings, in one place behind a pointer as a queue and an engine hold them.
struct Rings<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>: ~Copyable {
  var transmit: Driver
  var receive: Driver
  var source: Device
  var target: Device
  let memory: GuestMemory
  /// Kept as long as the process runs.
  let used = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: 64)
  var counts = RingLoopCounts()
  var token: UInt64 = 0

  init(_ setting: RingLoopSetting, _ memory: RingLoopMemory) throws {
    let map = try GuestMemory([
      GuestRegion(address: 0, length: UInt64(RingLoopMemory.bufferBytes), host: memory.buffers)
    ])
    let transmit = try Self.driver(setting, memory.transmit)
    let receive = try Self.driver(setting, memory.receive)
    let source = try Self.device(setting, memory.transmit)
    let target = try Self.device(setting, memory.receive)
    self.memory = map
    self.transmit = transmit
    self.receive = receive
    self.source = source
    self.target = target
  }

  private static func driver(_ setting: RingLoopSetting, _ block: UnsafeMutableRawPointer) throws -> Driver {
    var configuration = try Driver.Configuration(size: RingLoopMemory.size, block: block)
    configuration.eventIndex = true
    configuration.inOrder = setting.inOrder
    return try configuration.activate()
  }

  private static func device(_ setting: RingLoopSetting, _ block: UnsafeMutableRawPointer) throws -> Device {
    var configuration = try Device.Configuration(size: RingLoopMemory.size, block: block)
    configuration.eventIndex = true
    configuration.inOrder = setting.inOrder
    return try configuration.activate()
  }

  @inline(__always)
  private mutating func submit(_ burst: Int) {
    let first = token
    token &+= UInt64(
      truncatingIfNeeded: transmit.add(count: burst, writable: false) { index in
        let position = UInt64(truncatingIfNeeded: index)
        return RingBuffer(address: position &* 2048, length: 64, token: first &+ position)
      })
    transmit.publish()
    if transmit.needsKick() { counts.notified &+= 1 }
  }

  @inline(__always)
  private mutating func post(_ burst: Int) {
    let first = token
    _ = receive.add(count: burst, writable: true) { index in
      let position = UInt64(truncatingIfNeeded: index)
      return RingBuffer(address: (64 &+ position) &* 2048, length: 1526, token: first &+ position)
    }
    receive.publish()
    if receive.needsKick() { counts.notified &+= 1 }
  }

  @inline(__always)
  private static func reap(_ ring: inout Driver, into used: UnsafeMutablePointer<UsedBuffer>) throws(RingError) -> Int {
    guard ring.refresh() else { throw ring.failure ?? RingError(.stopped, 0) }
    return ring.takeSingles(max: 64) { position, token, written in
      used[position] = UsedBuffer(token: token, written: written)
      return true
    }
  }

  @inline(__always)
  private mutating func count(_ taken: Int) {
    for index in 0..<taken { counts.sum &+= used[index].token &+ UInt64(used[index].written) }
  }

  @inline(__always)
  mutating func loop(_ burst: Int) throws(RingError) -> Int {
    post(burst)
    submit(burst)
    if source.refresh() {
      target.refresh()
      _ = source.relay(to: &target, max: burst, in: memory) { frame, room in
        room.length >= frame.length ? UInt32(truncatingIfNeeded: frame.length) : nil
      }
    }
    target.publishUsed()
    source.publishUsed()
    if target.needsCall() { counts.notified &+= 1 }
    if source.needsCall() { counts.notified &+= 1 }
    count(try Self.reap(&transmit, into: used))
    let taken = try Self.reap(&receive, into: used)
    count(taken)
    counts.carried &+= UInt64(truncatingIfNeeded: taken)
    return taken
  }

  @inline(__always)
  mutating func release(_ burst: Int) throws(RingError) -> Int {
    submit(burst)
    if source.refresh() {
      while let chain = source.take(in: memory) { source.pushUsed(chain, written: 0) }
    }
    source.publishUsed()
    if source.needsCall() { counts.notified &+= 1 }
    let taken = try Self.reap(&transmit, into: used)
    count(taken)
    counts.carried &+= UInt64(truncatingIfNeeded: taken)
    return taken
  }

  @inline(__always)
  mutating func run(transmits: Bool, burst: Int, packets: UInt64) throws(RingError) {
    if transmits {
      while counts.carried < packets, try release(burst) > 0 {}
    } else {
      while counts.carried < packets, try loop(burst) > 0 {}
    }
  }
}

// One concrete class a format, as the driver and the engine have them: where what is generic is compiled for it.

private final class SplitLoop: RingLoop {
  private let rings = UnsafeMutablePointer<Rings<SplitDriverRing, SplitDeviceRing>>.allocate(capacity: 1)
  private let transmits: Bool

  init(_ setting: RingLoopSetting, _ memory: RingLoopMemory) throws {
    transmits = setting.transmits
    let made = try Rings<SplitDriverRing, SplitDeviceRing>(setting, memory)
    rings.initialize(to: made)
  }

  deinit {
    rings.deinitialize(count: 1)
    rings.deallocate()
  }

  var counts: RingLoopCounts { rings.pointee.counts }
  func turn(burst: Int) throws -> Int {
    transmits ? try rings.pointee.release(burst) : try rings.pointee.loop(burst)
  }
  func run(burst: Int, packets: UInt64) throws {
    try rings.pointee.run(transmits: transmits, burst: burst, packets: packets)
  }
}

private final class PackedLoop: RingLoop {
  private let rings = UnsafeMutablePointer<Rings<PackedDriverRing, PackedDeviceRing>>.allocate(capacity: 1)
  private let transmits: Bool

  init(_ setting: RingLoopSetting, _ memory: RingLoopMemory) throws {
    transmits = setting.transmits
    let made = try Rings<PackedDriverRing, PackedDeviceRing>(setting, memory)
    rings.initialize(to: made)
  }

  deinit {
    rings.deinitialize(count: 1)
    rings.deallocate()
  }

  var counts: RingLoopCounts { rings.pointee.counts }
  func turn(burst: Int) throws -> Int {
    transmits ? try rings.pointee.release(burst) : try rings.pointee.loop(burst)
  }
  func run(burst: Int, packets: UInt64) throws {
    try rings.pointee.run(transmits: transmits, burst: burst, packets: packets)
  }
}
