import CNetdevSystem
package import Virtio

/// What a test of both formats runs over.
package struct RingSetting: Sendable, CustomStringConvertible {
  package var format: RingFormat
  package var size: Int
  package var eventIndex: Bool
  package var inOrder: Bool
  package var startIndex: UInt16?

  package init(
    format: RingFormat, size: Int, eventIndex: Bool = true, inOrder: Bool = false, startIndex: UInt16? = nil
  ) {
    self.format = format
    self.size = size
    self.eventIndex = eventIndex
    self.inOrder = inOrder
    self.startIndex = startIndex
  }

  package var description: String {
    "\(format) \(size)\(eventIndex ? " event" : "")\(inOrder ? " in order" : "")\(startIndex.map { " from \($0)" } ?? "")"
  }

  /// The settings that differ in how rings work.
  package static func all(_ sizes: [Int]) -> [RingSetting] {
    var all: [RingSetting] = []
    for format in RingFormat.allCases {
      for size in sizes where format == .packed || size & (size - 1) == 0 {
        for inOrder in [false, true] {
          all.append(RingSetting(format: format, size: size, eventIndex: true, inOrder: inOrder))
          all.append(RingSetting(format: format, size: size, eventIndex: false, inOrder: inOrder))
        }
      }
    }
    return all
  }
}

/// Memory for one ring of either format, its tables and its buffers.
@safe
package final class RingPlace: @unchecked Sendable {
  // Proof of Sendable: addresses; what lies there is used by both sides under the rules of rings, or by one thread.

  package let setting: RingSetting
  package let layout: RingLayout
  package let block: UnsafeMutableRawPointer
  /// Buffers, and behind them indirect tables.
  package let buffers: UnsafeMutableRawPointer
  package static let bufferBase: UInt64 = 0x10_0000
  package static let bufferBytes = 1 << 20
  package static let tableCapacity = 8

  package init(_ setting: RingSetting) throws {
    self.setting = setting
    layout = try RingLayout(setting.format, size: setting.size)
    unsafe block = .allocate(byteCount: layout.totalBytes, alignment: 64)
    unsafe block.initializeMemory(as: UInt8.self, repeating: 0xa5, count: layout.totalBytes)
    let bytes = Self.bufferBytes + 16 * Self.tableCapacity * setting.size
    unsafe buffers = .allocate(byteCount: bytes, alignment: 4096)
    unsafe buffers.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
  }

  deinit {
    unsafe block.deallocate()
    unsafe buffers.deallocate()
  }

  package func memory() throws -> GuestMemory {
    let bytes = Self.bufferBytes + 16 * Self.tableCapacity * setting.size
    return unsafe try GuestMemory([GuestRegion(address: Self.bufferBase, length: UInt64(bytes), host: buffers)])
  }

  /// Lays the ring.
  package func driver<Ring: DriverRing & ~Copyable>(_: Ring.Type, indirect: Bool = false) throws -> Ring {
    var configuration = try unsafe Ring.Configuration(size: setting.size, block: block)
    configuration.eventIndex = setting.eventIndex
    configuration.inOrder = setting.inOrder
    if let index = setting.startIndex { configuration.startIndex = index }
    if indirect {
      configuration.indirect = unsafe IndirectTables(
        host: buffers + Self.bufferBytes, address: Self.bufferBase + UInt64(Self.bufferBytes),
        capacity: Self.tableCapacity)
    }
    return try configuration.activate()
  }

  package func device<Ring: DeviceRing & ~Copyable>(_: Ring.Type) throws -> Ring {
    var configuration = try unsafe Ring.Configuration(size: setting.size, block: block)
    configuration.eventIndex = setting.eventIndex
    configuration.inOrder = setting.inOrder
    configuration.indirect = true
    if let index = setting.startIndex { configuration.startIndex = index }
    return try configuration.activate()
  }
}
