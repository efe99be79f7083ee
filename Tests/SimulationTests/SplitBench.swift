import NetdevTesting
import Testing
import Virtio

/// A ring, of four descriptors unless it says otherwise, and its monitor; both sides are the test's to play.
@safe final class SplitBench {
  /// Device address of `frames`.
  static let base: UInt64 = 0x1_0000

  let driver: LyingDriverRing
  /// Where buffers point: 4 KiB.
  private let frames: UnsafeMutableRawPointer
  private let block: UnsafeMutableRawPointer
  private let layout: RingLayout
  private let monitor = RingMonitor()
  private let identity: UInt
  private let size: Int
  private var usedPosition: UInt16

  init(size: Int = 4, startIndex: UInt16 = 0, _ configure: (inout MonitoredRing) -> Void = { _ in }) throws {
    self.size = size
    layout = try RingLayout(.split, size: size)
    unsafe block = .allocate(byteCount: layout.totalBytes, alignment: 64)
    unsafe frames = .allocate(byteCount: 4096, alignment: 64)
    unsafe frames.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
    driver = unsafe try LyingDriverRing(size: size, block: block, startIndex: startIndex)
    usedPosition = startIndex
    var ring = unsafe MonitoredRing("the ring", .split, try RingAreas(.split, size: size, block: block))
    ring.startIndex = startIndex
    let start = unsafe UInt(bitPattern: frames)
    unsafe ring.place = { address, length in
      address >= Self.base && Int(address - Self.base) + length <= 4096
        ? unsafe UnsafeRawPointer(bitPattern: start + UInt(address - Self.base)) : nil
    }
    configure(&ring)
    identity = ring.identity
    monitor.watch(ring)
  }

  deinit {
    unsafe block.deallocate()
    unsafe frames.deallocate()
  }

  // MARK: What the sides do

  func write(
    _ index: Int, length: UInt32, flags: UInt16 = LyingDriverRing.Descriptor.isWritable, next: UInt16 = 0,
    at address: UInt64 = SplitBench.base
  ) {
    driver.write(.init(address: address, length: length, flags: flags, next: next), at: index)
  }

  /// A buffer of 64 bytes in the first descriptor.
  func offerOne() {
    write(0, length: 64)
    offer(0)
  }

  func offer(_ heads: UInt16...) {
    for head in heads { driver.offer(head) }
    driver.publish()
  }

  /// Writes into what buffers point to.
  func store(_ byte: UInt8, at offset: Int) { unsafe frames.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self) }

  /// Puts a descriptor where buffers point to.
  func store(_ descriptor: LyingDriverRing.Descriptor, entry: Int = 0) {
    unsafe LyingDriverRing.write(descriptor, to: frames + 16 * entry)
  }

  private var used: UnsafeMutableRawPointer { unsafe block + layout.deviceOffset }

  var usedIndex: UInt16 {
    get { unsafe (used + 2).load(as: UInt16.self) }
    set { unsafe (used + 2).storeBytes(of: newValue, as: UInt16.self) }
  }

  /// Uses a chain, or with IN_ORDER so many of which this is the last.
  func use(_ id: UInt32, length: UInt32, standingFor count: UInt16 = 1) {
    let place = unsafe used + 4 + 8 * (Int(usedPosition) & (size - 1))
    unsafe place.storeBytes(of: id, as: UInt32.self)
    unsafe (place + 4).storeBytes(of: length, as: UInt32.self)
    usedPosition &+= count
    usedIndex = usedPosition
  }

  func setUsedFlags(_ flags: UInt16) { unsafe used.storeBytes(of: flags, as: UInt16.self) }
  func setAvailEvent(_ event: UInt16) { unsafe (used + 4 + 8 * size).storeBytes(of: event, as: UInt16.self) }

  // MARK: What the monitor says

  func look() -> [RingViolation] { monitor.look() }
  func endTurn() -> [RingViolation] { monitor.endTurn() }
  func taking() -> [RingViolation] { monitor.noteTaking(identity) }
  func kick(rang: Bool) -> [RingViolation] { monitor.noteKick(identity, rang: rang) }
  func call(rang: Bool) -> [RingViolation] { monitor.noteCall(identity, rang: rang) }

  func expect(_ clause: RingClause, in found: [RingViolation], _ location: SourceLocation = #_sourceLocation) {
    #expect(found.map(\.clause) == [clause], "\(found)", sourceLocation: location)
    let citation = clause.citation(.split) ?? ""
    #expect(found.first?.description.hasSuffix("(\(citation))") == true, sourceLocation: location)
    // What was found wrong once is not found again.
    #expect(monitor.count == 0, sourceLocation: location)
  }
}
