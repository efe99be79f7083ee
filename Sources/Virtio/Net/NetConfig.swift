public import PacketFormats

/// Why a device's configuration was refused.
@frozen
public enum NetConfigError: Error, Hashable, Sendable {
  /// The device offers a feature whose field lies beyond its configuration.
  case tooShort(length: Int, needed: Int)
  /// The generation changed at every attempt.
  case unstable(attempts: Int)
  /// All zero, or a group address.
  case macAddress(MACAddress)
  /// Bits that no version defines: a device that is gone reads as all ones.
  case status(UInt16)
  /// Not from 1 to 32768 (VIRTIO 1.4 §5.1.4.1).
  case maximumPairs(UInt16)
  /// Below 68 (§5.1.4.1).
  case mtu(UInt16)
}

/// The configuration of a network device, as far as its features say that it exists (VIRTIO 1.4 §5.1.4).
///
/// Fields are read in their natural widths, together under one generation, and only those that an offered feature brings.
/// What is absurd is refused; what the text tells drivers to read as unknown is nil.
@frozen
public struct NetConfig: Hashable, Sendable {
  /// The link status (§5.1.4).
  @frozen
  public struct Status: OptionSet, Hashable, Sendable {
    /// The bits.
    public let rawValue: UInt16
    /// The status of these bits.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// The link is up.
    @inlinable public static var linkUp: Status { Status(rawValue: 1) }
    /// The device asks the driver to announce itself.
    @inlinable public static var announce: Status { Status(rawValue: 2) }
  }

  /// Duplex. §5.1.4 and §5.1.4.1 contradict one another about the numbers; these are the former's, and Linux's.
  @frozen
  public enum Duplex: UInt8, Hashable, Sendable {
    /// One direction at a time.
    case half = 0
    /// Both at once.
    case full = 1
  }

  /// The address that the device gives; nil without MAC.
  public var macAddress: MACAddress?
  /// The link's state; nil without STATUS, and then the link counts as up.
  public var status: Status?
  /// The most queue pairs; nil without MQ and RSS, and then there is one.
  public var maximumPairs: UInt16?
  /// The largest frame to send and receive, without its Ethernet header; nil without MTU.
  public var mtu: UInt16?
  /// Megabits a second; nil when unknown.
  public var speed: UInt32?
  /// Nil when unknown.
  public var duplex: Duplex?
  /// Bytes of the longest hash key; nil without RSS and HASH_REPORT.
  public var rssMaximumKeySize: UInt8?
  /// Entries of the longest indirection table; nil without RSS.
  public var rssMaximumTableLength: UInt16?
  /// Hashes that the device can compute; nil without RSS and HASH_REPORT.
  public var supportedHashTypes: UInt32?

  /// A configuration of nothing.
  public init() {}

  /// Reads the configuration of a device that offers `features`.
  ///
  /// Longer configurations than this code knows are accepted, shorter ones as far as no feature needs more (§2.5.1).
  ///
  /// - Throws: `NetConfigError` when it is shorter than a feature needs, or changes while it is read.
  public init(reading reader: some DeviceConfigReader, features: FeatureSet) throws(NetConfigError) {
    let needed = Self.length(for: features)
    guard reader.length >= needed else { throw .tooShort(length: reader.length, needed: needed) }
    self = try reader.readConsistently { () throws(NetConfigError) in
      try NetConfig(readingOnce: reader, features: features)
    }
  }

  /// Reads and checks each field that exists, once.
  private init(readingOnce reader: some DeviceConfigReader, features: FeatureSet) throws(NetConfigError) {
    if features.contains(.mac) {
      // Six fields of one byte: the generation is what keeps them together.
      let address = MACAddress(
        reader.read8(at: 0), reader.read8(at: 1), reader.read8(at: 2), reader.read8(at: 3), reader.read8(at: 4),
        reader.read8(at: 5))
      guard address.isUnicast else { throw .macAddress(address) }
      macAddress = address
    }
    if features.contains(.status) {
      let value = reader.read16(at: 6)
      guard value & ~3 == 0 else { throw .status(value) }
      status = Status(rawValue: value)
    }
    if !features.isDisjoint(with: [.mq, .rss]) {
      let pairs = reader.read16(at: 8)
      guard pairs >= 1, pairs <= 0x8000 else { throw .maximumPairs(pairs) }
      maximumPairs = pairs
    }
    if features.contains(.mtu) {
      let value = reader.read16(at: 10)
      guard value >= 68 else { throw .mtu(value) }
      mtu = value
    }
    if features.contains(.speedDuplex) {
      // What is beyond the numbers given is unknown, not wrong (§5.1.4.2).
      let value = reader.read32(at: 12)
      speed = value <= 0x7fff_ffff ? value : nil
      duplex = Duplex(rawValue: reader.read8(at: 16))
    }
    if !features.isDisjoint(with: [.rss, .hashReport]) {
      rssMaximumKeySize = reader.read8(at: 17)
      supportedHashTypes = reader.read32(at: 20)
    }
    if features.contains(.rss) { rssMaximumTableLength = reader.read16(at: 18) }
  }

  /// Bytes of configuration that these features bring.
  public static func length(for features: FeatureSet) -> Int {
    if !features.isDisjoint(with: [.rss, .hashReport]) { return 24 }
    if features.contains(.speedDuplex) { return 17 }
    if features.contains(.mtu) { return 12 }
    if features.contains(.mq) { return 10 }
    if features.contains(.status) { return 8 }
    return features.contains(.mac) ? 6 : 0
  }
}
