import FuzzSupport
import Virtio

/// The memory of a driver that lies: regions of every kind, each with fences around its mapping.
final class GuestWorld {
  /// A region as it is mapped.
  private struct Place {
    let address: UInt64
    let memory: FencedMemory
    let isWritable: Bool
  }

  private let places: [Place]

  /// Where the largest writable region begins, and its length in bytes.
  static let base: UInt64 = 0x1000_0000
  static let length = 16 * page
  private static let page = 4096

  /// - Parameter readOnlyFirst: the largest region of all is one that can only be read.
  init(readOnlyFirst: Bool) {
    let readOnly = FencedMemory((readOnlyFirst ? 20 : 2) * Self.page)
    readOnly.makeReadOnly()
    places = [
      Place(address: Self.base, memory: FencedMemory(Self.length), isWritable: true),
      // Next to the first for the driver, and not here.
      Place(address: Self.base + UInt64(Self.length), memory: FencedMemory(2 * Self.page), isWritable: true),
      Place(address: 0x2000_0000, memory: readOnly, isWritable: false),
      // To the last byte of the address space.
      Place(address: UInt64.max - UInt64(Self.page - 1), memory: FencedMemory(Self.page), isWritable: true),
    ]
  }

  /// The regions as a ring is given them.
  func memory() -> GuestMemory {
    do throws(GuestMemoryError) {
      return try GuestMemory(
        places.map { place in
          GuestRegion(
            address: place.address, length: UInt64(place.memory.count), host: place.memory.start,
            isWritable: place.isWritable)
        })
    } catch {
      violated("right regions are taken: \(error)")
    }
  }

  /// The mapping of an address in the largest writable region.
  func pointer(_ address: UInt64) -> UnsafeMutableRawPointer { places[0].memory.start + Int(address - Self.base) }

  /// Whether the driver of this world can write there itself.
  func canWrite(_ address: UInt64, _ count: Int) -> Bool {
    places.contains { place in
      let offset = address &- place.address
      return place.isWritable && offset <= UInt64(place.memory.count)
        && UInt64(count) <= UInt64(place.memory.count) - offset
    }
  }

  /// Ends the process unless all of a segment is in one region, and may be accessed so.
  func check(_ segment: BufferSegment, forWriting: Bool) {
    let start = UInt(bitPattern: segment.base)
    let isInside = places.contains { place in
      let first = UInt(bitPattern: place.memory.start)
      return start >= first && segment.length >= 0 && start - first <= UInt(place.memory.count)
        && UInt(segment.length) <= UInt(place.memory.count) - (start - first) && (place.isWritable || !forWriting)
    }
    promise(
      isInside, "\(segment.length) bytes of a chain lie in one region and may be \(forWriting ? "written" : "read")")
  }

  // MARK: What a lying driver writes

  /// An address in, near, or far from a region.
  static func address(_ input: inout InputReader) -> UInt64 {
    switch input.byte() & 7 {
    case 0, 1: base + UInt64(input.number(UInt16.self)) % UInt64(length)
    case 2: base + UInt64(length) - UInt64(input.byte())
    case 3: base + UInt64(length + 2 * page) - UInt64(input.byte())
    case 4: 0x2000_0000 + UInt64(input.number(UInt16.self)) % UInt64(2 * page + 16) - 8
    case 5: UInt64.max - UInt64(input.number(UInt16.self)) % UInt64(page + 8)
    case 6: input.number()
    default: tables + 16 * UInt64(input.byte())
    }
  }

  /// Where indirect tables are written: 16 KiB into the first region.
  static let tables = base + UInt64(4 * page)

  /// A length: usual, on an edge, or anything.
  static func length(_ input: inout InputReader) -> UInt32 {
    let choice = input.byte()
    switch choice {
    case 0..<160: return UInt32(choice) * 16
    case 160..<200: return UInt32(choice - 160)
    case 200..<230: return UInt32(input.number(UInt16.self))
    case 230..<240: return UInt32.max - UInt32(input.byte())
    default: return input.number()
    }
  }

  /// A descriptor of anything; its flags are mostly the three that there are.
  static func descriptor(_ input: inout InputReader) -> RawDescriptor {
    let flags = input.byte()
    return RawDescriptor(
      address: address(&input), length: length(&input),
      flags: flags & 0x80 == 0 ? UInt16(flags & 7) : UInt16(flags) << 8 | 1,
      next: flags & 0x40 == 0 ? UInt16(input.byte() & 31) : input.number())
  }

  /// Writes an entry of an indirect table.
  func writeTableEntry(_ input: inout InputReader) {
    let place = Self.tables + 16 * UInt64(input.byte())
    Self.descriptor(&input).store(pointer(place))
  }
}
