/// An address resolution packet for IPv4 on Ethernet (RFC 826): who has this protocol address, and at which hardware address.
///
/// The names are those of RFC 826: `ar$sha`, `ar$spa`, `ar$tha`, `ar$tpa`. Other hardware or protocol address spaces are
/// refused when decoding.
@frozen
public struct ARPPacket: Sendable, Hashable {
  /// Bytes on the wire.
  public static var length: Int { @inlinable get { 28 } }

  /// What the packet wants (`ar$op`).
  @frozen
  public struct Operation: RawRepresentable, Sendable, Hashable {
    /// The number on the wire.
    public let rawValue: UInt16

    /// The operation with this number.
    @inlinable
    public init(rawValue: UInt16) {
      self.rawValue = rawValue
    }

    /// "Who has the target protocol address?"
    @inlinable public static var request: Operation { Operation(rawValue: 1) }
    /// "The sender has it."
    @inlinable public static var reply: Operation { Operation(rawValue: 2) }
  }

  /// What the packet wants.
  public var operation: Operation
  /// Who says so, on the link.
  public var senderHardwareAddress: MACAddress
  /// Who says so; `0.0.0.0` in the probe of a host that has no address yet (RFC 5227 §1.1).
  public var senderProtocolAddress: IPv4Address
  /// To whom a reply is said; of no meaning in a request.
  public var targetHardwareAddress: MACAddress
  /// The address that is asked for.
  public var targetProtocolAddress: IPv4Address

  /// A packet with these fields.
  @inlinable
  public init(
    operation: Operation, senderHardwareAddress: MACAddress, senderProtocolAddress: IPv4Address,
    targetHardwareAddress: MACAddress, targetProtocolAddress: IPv4Address
  ) {
    self.operation = operation
    self.senderHardwareAddress = senderHardwareAddress
    self.senderProtocolAddress = senderProtocolAddress
    self.targetHardwareAddress = targetHardwareAddress
    self.targetProtocolAddress = targetProtocolAddress
  }

  // Hardware type 1 (Ethernet), protocol type 0x0800, lengths 6 and 4: the first six bytes of every packet decoded here.
  @inlinable static var addressSpace: UInt64 { 0x0001_0800_0604 }

  /// Reads the packet at `offset`. Throws `truncated`, or `arpAddressSpace` for anything but IPv4 on Ethernet.
  @inlinable @inline(__always)
  public init(decoding bytes: RawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(ARPPacket.length, at: offset) else {
      throw .truncated(ARPPacket.length, at: offset, of: bytes.byteCount)
    }
    let front = bytes.loadUInt64(inside: offset)
    let sender = bytes.loadUInt64(inside: offset &+ 8)
    // Bytes 16–23: the lower half of the sender's protocol address, then the target's hardware address.
    let middle = bytes.loadUInt64(inside: offset &+ 16)
    let target = bytes.loadUInt32(inside: offset &+ 24)
    guard front >> 16 == ARPPacket.addressSpace else { throw PacketFormatError(.arpAddressSpace, .number(front >> 16)) }
    operation = Operation(rawValue: UInt16(truncatingIfNeeded: front))
    senderHardwareAddress = MACAddress(rawValue: sender >> 16)
    senderProtocolAddress = IPv4Address(rawValue: UInt32(truncatingIfNeeded: sender) << 16 | UInt32(middle >> 48))
    targetHardwareAddress = MACAddress(rawValue: middle)
    targetProtocolAddress = IPv4Address(rawValue: target)
  }

  /// Writes the packet at `offset`. Throws `truncated` if it does not fit; then nothing is written.
  @inlinable @inline(__always)
  public func encode(into bytes: inout MutableRawSpan, at offset: Int = 0) throws(PacketFormatError) {
    guard bytes.holds(ARPPacket.length, at: offset) else {
      throw .truncated(ARPPacket.length, at: offset, of: bytes.byteCount)
    }
    store(into: &bytes, at: offset)
  }

  /// Writes the packet where the caller knows that there is room for it; out of bounds it stops the program.
  @inlinable @inline(__always)
  package func store(into bytes: inout MutableRawSpan, at offset: Int) {
    let spa = UInt64(senderProtocolAddress.rawValue)
    bytes.storeUInt64(ARPPacket.addressSpace << 16 | UInt64(operation.rawValue), inside: offset)
    bytes.storeUInt64(senderHardwareAddress.rawValue << 16 | spa >> 16, inside: offset &+ 8)
    bytes.storeUInt64(spa << 48 | targetHardwareAddress.rawValue, inside: offset &+ 16)
    bytes.storeUInt32(targetProtocolAddress.rawValue, inside: offset &+ 24)
  }

  /// The reply of the host at `hardwareAddress`, which has the address asked for: sender and target exchanged
  /// (RFC 826, Packet Reception: "Swap hardware and protocol fields, putting the local hardware and protocol addresses in
  /// the sender fields").
  @inlinable
  public func reply(from hardwareAddress: MACAddress) -> ARPPacket {
    ARPPacket(
      operation: .reply, senderHardwareAddress: hardwareAddress, senderProtocolAddress: targetProtocolAddress,
      targetHardwareAddress: senderHardwareAddress, targetProtocolAddress: senderProtocolAddress)
  }
}
