public import PacketFormats
public import Virtio

/// Which frames a device hands to its driver, as the driver has asked for it by the control virtqueue (VIRTIO 1.4 §5.1.9.5.1).
///
/// A driver that has asked for nothing gets everything. A value that does not change: whoever changes the filter makes another one.
public struct ReceiveFilter: Sendable, Hashable {
  /// The device's own address.
  public internal(set) var station: MACAddress
  /// The switches that are on.
  public internal(set) var switches: Set<NetControlCommand.ReceiveSwitch> = [.promiscuous]
  /// Further stations; nil when there were more than are kept: then any is one.
  public internal(set) var unicast: Set<MACAddress>? = []
  /// Groups; nil when there were more than are kept.
  public internal(set) var multicast: Set<MACAddress>? = []
  /// VLANs whose frames pass; nil where the driver has not agreed on filtering them.
  public internal(set) var vlans: Set<UInt16>?

  /// The filter of a device that nobody has asked for anything.
  public init(station: MACAddress) { self.station = station }

  /// Whether everything passes.
  public var passesAll: Bool { switches.contains(.promiscuous) }

  /// The longest piece of a frame that `admits` looks at.
  static let prefixLength = 16

  /// Whether a frame passes that begins with these bytes, which are a private copy; one that is shorter than an Ethernet header does
  /// not.
  public func admits(_ frame: RawSpan) -> Bool {
    if passesAll { return true }
    guard let destination = MACAddress(decoding: frame), frame.byteCount >= EthernetHeader.length else { return false }
    if let vlans, let id = Self.vlan(of: frame), !vlans.contains(id) { return false }
    if destination.isBroadcast { return !switches.contains(.noBroadcast) }
    if destination.isGroup {
      if switches.contains(.noMulticast) { return false }
      return switches.contains(.allMulticast) || multicast?.contains(destination) ?? true
    }
    if switches.contains(.noUnicast) { return false }
    return switches.contains(.allUnicast) || destination == station || unicast?.contains(destination) ?? true
  }

  /// The VLAN of the outer tag; nil for a frame without one. A tag of priority alone names VLAN 0, which is none.
  private static func vlan(of frame: RawSpan) -> UInt16? {
    guard let type = try? frame.loadUInt16(at: 12), type == 0x8100 || type == 0x88A8,
      let id = (try? frame.loadUInt16(at: 14)).map({ $0 & 0xFFF })
    else { return nil }
    return id == 0 ? nil : id
  }
}

/// A filter where an engine finds it without counting references.
final class FilterBox: Sendable {
  let filter: ReceiveFilter
  init(_ filter: ReceiveFilter) { self.filter = filter }
}
