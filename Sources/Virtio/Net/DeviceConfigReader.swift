/// A device's configuration space, read in the natural width of each field (VIRTIO 1.4 §2.5, §4.1.3.1).
///
/// A transport implements it over what it has: registers of a PCI function, an ioctl, a copied block. Nobody calls it beyond
/// `length`, nor unaligned.
public protocol DeviceConfigReader {
  /// Bytes of the configuration that the device has. It may be more than a driver knows (§2.5.1).
  var length: Int { get }

  /// The generation: it changes whenever a field may have changed between two reads. Eight bits on some transports.
  /// A constant where there is none, or where the configuration was copied as a whole.
  var generation: UInt32 { get }

  /// The byte at `offset`.
  func read8(at offset: Int) -> UInt8
  /// The 16-bit field at `offset`, in one access.
  func read16(at offset: Int) -> UInt16
  /// The 32-bit field at `offset`, in one access.
  func read32(at offset: Int) -> UInt32
}

extension DeviceConfigReader {
  /// A 64-bit field: two accesses of 32 bits, the low one first, which is not atomic: inside `readConsistently` only.
  public func read64(at offset: Int) -> UInt64 {
    let low = read32(at: offset)
    return UInt64(low) | UInt64(read32(at: offset + 4)) << 32
  }

  /// Reads through `body` until the generation was the same before and after (§2.5.1).
  ///
  /// The generation may be as short as 8 bits and a device may change it for ever: after `attempts` it is `.unstable`.
  ///
  /// - Throws: what a read throws, or that the generation never stood still.
  public func readConsistently<Value>(
    attempts: Int = 16, _ body: () throws(NetConfigError) -> Value
  ) throws(NetConfigError) -> Value {
    for _ in 0..<attempts {
      let before = generation
      let value = Result { () throws(NetConfigError) in try body() }
      // A value that was torn may have looked absurd: it only counts when nothing changed meanwhile.
      if generation == before { return try value.get() }
    }
    throw .unstable(attempts: attempts)
  }
}

/// A configuration that was copied as a whole, as vhost-user's GET_CONFIG gives it.
public struct CopiedConfig: DeviceConfigReader, Sendable {
  /// The bytes, as the device has them.
  public let bytes: [UInt8]

  /// The configuration of these bytes.
  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Bytes of the configuration.
  public var length: Int { bytes.count }
  /// Constant: nothing changes in a copy.
  public var generation: UInt32 { 0 }

  /// The byte at `offset`.
  public func read8(at offset: Int) -> UInt8 { bytes[offset] }
  /// The 16-bit field at `offset`.
  public func read16(at offset: Int) -> UInt16 { UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8 }
  /// The 32-bit field at `offset`.
  public func read32(at offset: Int) -> UInt32 { UInt32(read16(at: offset)) | UInt32(read16(at: offset + 2)) << 16 }
}
