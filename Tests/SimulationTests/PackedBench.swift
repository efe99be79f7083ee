import NetdevTesting
import Virtio

/// What the sides of a packed ring do.
@safe final class PackedBench: RingBench {
  enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
    static func available(_ wrap: Bool) -> UInt16 { wrap ? 0x80 : 0x8000 }
    static func used(_ wrap: Bool) -> UInt16 { wrap ? 0x8080 : 0 }
  }

  /// Where a side is.
  struct Position {
    var place = 0
    var wrap = true
    mutating func advance(_ count: Int = 1, of size: Int) {
      place += count
      while place >= size { (place, wrap) = (place - size, !wrap) }
    }
  }

  var driver = Position()
  var device = Position()

  init(size: Int = 4, _ configure: (inout MonitoredRing) -> Void = { _ in }) throws {
    try super.init(.packed, size: size, Memory(.packed, size: size), configure)
  }

  /// Writes a descriptor; without an address all but that.
  func write(length: UInt32, id: UInt16, flags: UInt16, at place: Int, address: UInt64? = PackedBench.base) {
    let descriptor = unsafe block + 16 * place
    if let address { unsafe descriptor.storeBytes(of: address, as: UInt64.self) }
    unsafe (descriptor + 8).storeBytes(of: length, as: UInt32.self)
    unsafe (descriptor + 12).storeBytes(of: id, as: UInt16.self)
    unsafe (descriptor + 14).storeBytes(of: flags, as: UInt16.self)
  }

  /// Makes a chain of buffers to write available, its first descriptor last.
  func offer(id: UInt16, lengths: [UInt32] = [64]) {
    var positions: [Position] = []
    for _ in lengths {
      positions.append(driver)
      driver.advance(of: size)
    }
    for (number, length) in lengths.enumerated().reversed() {
      let flags = Flag.write | (number == lengths.count - 1 ? 0 : Flag.next)
      let position = positions[number]
      write(length: length, id: id, flags: Flag.available(position.wrap) | flags, at: position.place)
    }
  }

  /// Uses a chain of so many descriptors, or with IN_ORDER chains of which this is the last.
  func use(id: UInt16, length: UInt32, places: Int = 1) {
    write(length: length, id: id, flags: Flag.used(device.wrap) | Flag.write, at: device.place, address: nil)
    device.advance(places, of: size)
  }

  /// Puts a descriptor where buffers point to.
  func storeDescriptor(length: UInt32, flags: UInt16) {
    unsafe frames.storeBytes(of: Self.base, as: UInt64.self)
    unsafe (frames + 8).storeBytes(of: UInt64(length) | UInt64(flags) << 48, as: UInt64.self)
  }

  var driverWish: UInt32 {
    get { unsafe (block + layout.driverOffset).load(as: UInt32.self) }
    set { unsafe (block + layout.driverOffset).storeBytes(of: newValue, as: UInt32.self) }
  }

  var deviceWish: UInt32 {
    get { unsafe (block + layout.deviceOffset).load(as: UInt32.self) }
    set { unsafe (block + layout.deviceOffset).storeBytes(of: newValue, as: UInt32.self) }
  }
}
