import NetdevTesting
import Testing
import Virtio

/// A ring of either format and its monitor; both sides are the test's to play.
@safe class RingBench {
  /// The ring's areas, and what buffers point to.
  @safe final class Memory {
    static let frameBytes = 4096
    let layout: RingLayout
    let block: UnsafeMutableRawPointer
    let frames: UnsafeMutableRawPointer

    /// Zeroed.
    init(_ format: RingFormat, size: Int) throws {
      layout = try RingLayout(format, size: size)
      unsafe block = .allocate(byteCount: layout.totalBytes, alignment: 64)
      unsafe frames = .allocate(byteCount: Self.frameBytes, alignment: 64)
      unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
      unsafe frames.initializeMemory(as: UInt8.self, repeating: 0, count: Self.frameBytes)
    }

    deinit {
      unsafe block.deallocate()
      unsafe frames.deallocate()
    }
  }

  /// Device address of the memory's frames.
  static let base: UInt64 = 0x1_0000

  let size: Int
  private let memory: Memory
  private let format: RingFormat
  private let monitor = RingMonitor()
  private let identity: UInt

  init(
    _ format: RingFormat, size: Int, _ memory: Memory, _ configure: (inout MonitoredRing) -> Void
  ) throws {
    self.format = format
    self.size = size
    self.memory = memory
    var ring = unsafe MonitoredRing("the ring", format, try RingAreas(format, size: size, block: memory.block))
    let start = unsafe UInt(bitPattern: memory.frames)
    unsafe ring.place = { address, length in
      address >= Self.base && Int(address - Self.base) + length <= Memory.frameBytes
        ? unsafe UnsafeRawPointer(bitPattern: start + UInt(address - Self.base)) : nil
    }
    configure(&ring)
    identity = ring.identity
    monitor.watch(ring)
  }

  var layout: RingLayout { memory.layout }
  var block: UnsafeMutableRawPointer { unsafe memory.block }
  /// Where buffers point.
  var frames: UnsafeMutableRawPointer { unsafe memory.frames }

  /// Writes into what buffers point to.
  func store(_ byte: UInt8, at offset: Int) { unsafe frames.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self) }

  // MARK: What the monitor says

  func look() -> [RingViolation] { monitor.look() }
  func endTurn() -> [RingViolation] { monitor.endTurn() }
  func taking() -> [RingViolation] { monitor.noteTaking(identity) }
  func kick(rang: Bool) -> [RingViolation] { monitor.noteKick(identity, rang: rang) }
  func call(rang: Bool) -> [RingViolation] { monitor.noteCall(identity, rang: rang) }

  func expect(_ clause: RingClause, in found: [RingViolation], _ location: SourceLocation = #_sourceLocation) {
    #expect(found.map(\.clause) == [clause], "\(found)", sourceLocation: location)
    let citation = clause.citation(format) ?? ""
    #expect(found.first?.description.hasSuffix("(\(citation))") == true, sourceLocation: location)
    // What was found wrong once is not found again.
    #expect(monitor.count == 0, sourceLocation: location)
  }
}
