/// Where a ring lies, and where it starts: what a device is told of it, whatever its format.
@safe
public struct RingAreas {
  /// Number of descriptors.
  public var size: Int
  /// The descriptors. The areas stay mapped while the ring is used.
  public var descriptors: UnsafeMutableRawPointer
  /// The driver area: the available ring, or event suppression of a packed ring.
  public var driver: UnsafeMutableRawPointer
  /// The device area: the used ring, or event suppression of a packed ring.
  public var device: UnsafeMutableRawPointer
  /// The index that the ring starts at, what a front-end gave as its base; nil for the first one of its format.
  public var startIndex: UInt16?

  /// A ring of `size` descriptors in three areas whose sizes are those of `RingLayout`.
  public init(
    size: Int, descriptors: UnsafeMutableRawPointer, driver: UnsafeMutableRawPointer, device: UnsafeMutableRawPointer
  ) {
    self.size = size
    unsafe self.descriptors = descriptors
    unsafe self.driver = driver
    unsafe self.device = device
  }

  /// A ring of `size` descriptors in one block laid out as `RingLayout` says.
  ///
  /// - Throws: `RingError` for a size that no ring of this format has.
  public init(_ format: RingFormat, size: Int, block: UnsafeMutableRawPointer) throws(RingError) {
    let layout = try RingLayout(format, size: size)
    unsafe self.init(
      size: size, descriptors: block, driver: block + layout.driverOffset, device: block + layout.deviceOffset)
  }

  /// A ring of `size` descriptors at three addresses of the driver, each in one region of `memory`.
  ///
  /// What the device writes must be writable. Throws `.size`, or `.areaUnmapped` with the address.
  public init(
    _ format: RingFormat, size: Int, descriptorAddress: UInt64, driverAddress: UInt64, deviceAddress: UInt64,
    memory: borrowing GuestMemory
  ) throws(RingError) {
    let layout = try RingLayout(format, size: size)
    guard
      let descriptors = unsafe memory.pointer(
        to: descriptorAddress, length: UInt32(layout.descriptorBytes), forWriting: format == .packed)
    else { throw RingError(.areaUnmapped, descriptorAddress) }
    guard let driver = unsafe memory.pointer(to: driverAddress, length: UInt32(layout.driverBytes), forWriting: false)
    else { throw RingError(.areaUnmapped, driverAddress) }
    guard let device = unsafe memory.pointer(to: deviceAddress, length: UInt32(layout.deviceBytes), forWriting: true)
    else { throw RingError(.areaUnmapped, deviceAddress) }
    unsafe self.init(size: size, descriptors: descriptors, driver: driver, device: device)
  }

  /// The layout, when the areas fit it and the index is one that a ring of this size can start at.
  func checkedLayout(_ format: RingFormat, startIndex: UInt16) throws(RingError) -> RingLayout {
    let layout = try RingLayout(format, size: size)
    unsafe try layout.check(
      descriptors: UInt64(UInt(bitPattern: descriptors)), driver: UInt64(UInt(bitPattern: driver)),
      device: UInt64(UInt(bitPattern: device)))
    try layout.check(startIndex: startIndex)
    return layout
  }
}
