public import PacketFormats

/// A command of the control virtqueue (VIRTIO 1.4 §5.1.9.5), as drivers write it and devices read it.
public enum NetControlCommand: Hashable, Sendable {
  /// One of the switches of reception.
  case receive(ReceiveSwitch, Bool)
  /// The stations whose frames are handed over beside the device's own; what was set before is forgotten. Nil of a table that was
  /// longer than its reader keeps: any address of its kind counts as in it.
  case addressTable(unicast: [MACAddress]?, multicast: [MACAddress]?)
  /// The device's address.
  case address(MACAddress)
  /// Hands frames of this VLAN over, or no longer.
  case vlan(UInt16, isAdded: Bool)
  /// The driver has announced itself.
  case announced
  /// So many queue pairs are in use.
  case queuePairs(UInt16)

  /// What of the frames that come in a device hands over.
  public enum ReceiveSwitch: UInt8, Hashable, Sendable, CaseIterable {
    /// Everything.
    case promiscuous = 0
    /// All frames to groups.
    case allMulticast = 1
    /// All frames to stations.
    case allUnicast = 2
    /// No frame to a group that is not all stations.
    case noMulticast = 3
    /// No frame to a station.
    case noUnicast = 4
    /// No frame to all stations.
    case noBroadcast = 5
  }

  /// What the device answers: done.
  public static let ok: UInt8 = 0
  /// What the device answers: refused.
  public static let refused: UInt8 = 1

  /// The feature that brings the command.
  public var feature: FeatureSet {
    switch self {
    case .receive(.promiscuous, _), .receive(.allMulticast, _): .ctrlRX
    case .receive: .ctrlRXExtra
    // The table came with the switches.
    case .addressTable: .ctrlRX
    case .address: .ctrlMACAddress
    case .vlan: .ctrlVLAN
    case .announced: .guestAnnounce
    case .queuePairs: .mq
    }
  }
}

// MARK: - Writing

extension NetControlCommand {
  /// Class and command, the two bytes in front.
  public var header: [UInt8] {
    switch self {
    case .receive(let which, _): [0, which.rawValue]
    case .addressTable: [1, 0]
    case .address: [1, 1]
    case .vlan(_, let isAdded): [2, isAdded ? 0 : 1]
    case .announced: [3, 0]
    case .queuePairs: [4, 0]
    }
  }

  /// What follows them; empty where nothing does.
  public var payload: [UInt8] {
    switch self {
    case .receive(_, let isOn): [isOn ? 1 : 0]
    case .addressTable(let unicast, let multicast): Self.table(unicast ?? []) + Self.table(multicast ?? [])
    case .address(let address): Self.bytes(address)
    case .vlan(let id, _): Self.bytes(id)
    case .announced: []
    case .queuePairs(let count): Self.bytes(count)
    }
  }

  private static func table(_ addresses: [MACAddress]) -> [UInt8] {
    let count = UInt32(truncatingIfNeeded: addresses.count)
    return (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) } + addresses.flatMap { bytes($0) }
  }

  private static func bytes(_ address: MACAddress) -> [UInt8] { (0..<6).map { address[$0] } }
  private static func bytes(_ value: UInt16) -> [UInt8] {
    [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)]
  }
}

// MARK: - Reading

extension NetControlCommand {
  /// Addresses of each kind that a reader keeps at most.
  public static let maximumAddresses = 64

  /// The command that lies in `length` bytes, which the driver may change at any time: each is copied once.
  ///
  /// Nil for what is no command of this code, has not the bytes that it needs, or more than these.
  ///
  /// - Parameters:
  ///   - length: bytes of the command, its class and code included.
  ///   - copy: copies so many bytes from a position on, which lie inside.
  public init?(length: Int, copy: (_ position: Int, _ count: Int) -> [UInt8]) {
    guard length >= 2 else { return nil }
    let header = copy(0, 2)
    guard header.count == 2 else { return nil }
    /// The payload, if it has just this length.
    func payload(_ count: Int) -> [UInt8]? {
      guard length == 2 + count else { return nil }
      let bytes = copy(2, count)
      return bytes.count == count ? bytes : nil
    }
    switch (header[0], header[1]) {
    case (0, let number):
      guard let which = ReceiveSwitch(rawValue: number), let on = payload(1), on[0] <= 1 else { return nil }
      self = .receive(which, on[0] == 1)
    case (1, 0):
      guard let first = Self.readTable(at: 2, length, copy), let second = Self.readTable(at: first.end, length, copy),
        second.end == length, first.addresses?.allSatisfy({ !$0.isGroup }) ?? true,
        second.addresses?.allSatisfy({ $0.isGroup }) ?? true
      else { return nil }
      self = .addressTable(unicast: first.addresses, multicast: second.addresses)
    case (1, 1):
      guard let bytes = payload(6) else { return nil }
      self = .address(Self.address(bytes, at: 0))
    case (2, let number) where number <= 1:
      guard let bytes = payload(2) else { return nil }
      self = .vlan(UInt16(bytes[0]) | UInt16(bytes[1]) << 8, isAdded: number == 0)
    case (3, 0):
      guard length == 2 else { return nil }
      self = .announced
    case (4, 0):
      guard let bytes = payload(2) else { return nil }
      self = .queuePairs(UInt16(bytes[0]) | UInt16(bytes[1]) << 8)
    default: return nil
    }
  }

  /// A table and where it ends. The count is the driver's word: it is checked against what is there before anything is made of it.
  private static func readTable(
    at start: Int, _ length: Int, _ copy: (Int, Int) -> [UInt8]
  ) -> (addresses: [MACAddress]?, end: Int)? {
    guard start <= length, length - start >= 4 else { return nil }
    let bytes = copy(start, 4)
    guard bytes.count == 4 else { return nil }
    let count = Int(bytes[0]) | Int(bytes[1]) << 8 | Int(bytes[2]) << 16 | Int(bytes[3]) << 24
    // Below 2³⁵: no overflow.
    let end = start + 4 + 6 * count
    guard end <= length else { return nil }
    guard count <= maximumAddresses else { return (nil, end) }
    let entries = copy(start + 4, 6 * count)
    guard entries.count == 6 * count else { return nil }
    return ((0..<count).map { address(entries, at: 6 * $0) }, end)
  }

  private static func address(_ bytes: [UInt8], at start: Int) -> MACAddress {
    MACAddress(
      bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3], bytes[start + 4], bytes[start + 5])
  }
}
