/// The feature bits that this code knows, by name.
extension FeatureSet {
  /// Bit 0. Packets to the device may have partial checksums.
  @inlinable public static var csum: FeatureSet { FeatureSet(bit: 0) }
  /// Bit 1. Packets from the device may have partial checksums.
  @inlinable public static var guestCsum: FeatureSet { FeatureSet(bit: 1) }
  /// Bit 2. The driver may change its receive offloads through the control channel.
  @inlinable public static var ctrlGuestOffloads: FeatureSet { FeatureSet(bit: 2) }
  /// Bit 3. The device says its maximum MTU.
  @inlinable public static var mtu: FeatureSet { FeatureSet(bit: 3) }
  /// Bit 5. The device gives a MAC address.
  @inlinable public static var mac: FeatureSet { FeatureSet(bit: 5) }
  /// Bit 7. The driver accepts TCP segments over IPv4 to be cut.
  @inlinable public static var guestTSO4: FeatureSet { FeatureSet(bit: 7) }
  /// Bit 8. The driver accepts TCP segments over IPv6 to be cut.
  @inlinable public static var guestTSO6: FeatureSet { FeatureSet(bit: 8) }
  /// Bit 9. The driver accepts such segments with ECN.
  @inlinable public static var guestECN: FeatureSet { FeatureSet(bit: 9) }
  /// Bit 10. The driver accepts large UDP datagrams to be fragmented.
  @inlinable public static var guestUFO: FeatureSet { FeatureSet(bit: 10) }
  /// Bit 11. The device accepts TCP segments over IPv4 to be cut.
  @inlinable public static var hostTSO4: FeatureSet { FeatureSet(bit: 11) }
  /// Bit 12. The device accepts TCP segments over IPv6 to be cut.
  @inlinable public static var hostTSO6: FeatureSet { FeatureSet(bit: 12) }
  /// Bit 13. The device accepts such segments with ECN.
  @inlinable public static var hostECN: FeatureSet { FeatureSet(bit: 13) }
  /// Bit 14. The device accepts large UDP datagrams to be fragmented.
  @inlinable public static var hostUFO: FeatureSet { FeatureSet(bit: 14) }
  /// Bit 15. A received frame may be spread over several buffers.
  @inlinable public static var mrgRxbuf: FeatureSet { FeatureSet(bit: 15) }
  /// Bit 16. The configuration has a link status.
  @inlinable public static var status: FeatureSet { FeatureSet(bit: 16) }
  /// Bit 17. There is a control virtqueue.
  @inlinable public static var ctrlVQ: FeatureSet { FeatureSet(bit: 17) }
  /// Bit 18. The control channel sets receive modes.
  @inlinable public static var ctrlRX: FeatureSet { FeatureSet(bit: 18) }
  /// Bit 19. The control channel filters VLANs.
  @inlinable public static var ctrlVLAN: FeatureSet { FeatureSet(bit: 19) }
  /// Bit 20. The control channel sets further receive modes.
  @inlinable public static var ctrlRXExtra: FeatureSet { FeatureSet(bit: 20) }
  /// Bit 21. The driver can announce itself when asked.
  @inlinable public static var guestAnnounce: FeatureSet { FeatureSet(bit: 21) }
  /// Bit 22. The device has several queue pairs, and steers receive flows by itself.
  @inlinable public static var mq: FeatureSet { FeatureSet(bit: 22) }
  /// Bit 23. The control channel sets the MAC address.
  @inlinable public static var ctrlMACAddress: FeatureSet { FeatureSet(bit: 23) }
  /// Bit 26. vhost only: the back-end logs the pages that it writes.
  @inlinable public static var vhostLogAll: FeatureSet { FeatureSet(bit: 26) }
  /// Bit 28. A descriptor may refer to a table of descriptors.
  @inlinable public static var indirectDesc: FeatureSet { FeatureSet(bit: 28) }
  /// Bit 29. Each side says at which index it wants to be told.
  @inlinable public static var eventIndex: FeatureSet { FeatureSet(bit: 29) }
  /// Bit 30. vhost-user only: protocol features follow. Never shown to a driver.
  @inlinable public static var vhostUserProtocolFeatures: FeatureSet { FeatureSet(bit: 30) }
  /// Bit 32. The device follows VIRTIO 1.0 or later.
  @inlinable public static var version1: FeatureSet { FeatureSet(bit: 32) }
  /// Bit 33. Addresses are translated, or limited, by the platform.
  @inlinable public static var accessPlatform: FeatureSet { FeatureSet(bit: 33) }
  /// Bit 34. The packed virtqueue layout.
  @inlinable public static var ringPacked: FeatureSet { FeatureSet(bit: 34) }
  /// Bit 35. Buffers are used in the order in which they were made available.
  @inlinable public static var inOrder: FeatureSet { FeatureSet(bit: 35) }
  /// Bit 36. Memory accesses need the ordering of a platform device.
  @inlinable public static var orderPlatform: FeatureSet { FeatureSet(bit: 36) }
  /// Bit 38. Doorbells carry the ring's index.
  @inlinable public static var notificationData: FeatureSet { FeatureSet(bit: 38) }
  /// Bit 39. Doorbells carry data that the device gave.
  @inlinable public static var notifConfigData: FeatureSet { FeatureSet(bit: 39) }
  /// Bit 40. A single queue can be reset.
  @inlinable public static var ringReset: FeatureSet { FeatureSet(bit: 40) }
  /// Bit 41. There is an administration virtqueue.
  @inlinable public static var adminVQ: FeatureSet { FeatureSet(bit: 41) }
  /// Bit 43. The device can be suspended.
  @inlinable public static var suspend: FeatureSet { FeatureSet(bit: 43) }
  /// Bit 50. The control channel gives statistics.
  @inlinable public static var deviceStats: FeatureSet { FeatureSet(bit: 50) }
  /// Bit 51. Hashes may look into tunnels.
  @inlinable public static var hashTunnel: FeatureSet { FeatureSet(bit: 51) }
  /// Bit 52. Notifications are coalesced by queue.
  @inlinable public static var vqNotfCoal: FeatureSet { FeatureSet(bit: 52) }
  /// Bit 53. Notifications are coalesced by direction.
  @inlinable public static var notfCoal: FeatureSet { FeatureSet(bit: 53) }
  /// Bit 54. The driver accepts UDP segments over IPv4 to be cut.
  @inlinable public static var guestUSO4: FeatureSet { FeatureSet(bit: 54) }
  /// Bit 55. The driver accepts UDP segments over IPv6 to be cut.
  @inlinable public static var guestUSO6: FeatureSet { FeatureSet(bit: 55) }
  /// Bit 56. The device accepts UDP segments to be cut.
  @inlinable public static var hostUSO: FeatureSet { FeatureSet(bit: 56) }
  /// Bit 57. The header has a hash: it grows to 20 bytes.
  @inlinable public static var hashReport: FeatureSet { FeatureSet(bit: 57) }
  /// Bit 59. The driver gives exact header lengths.
  @inlinable public static var guestHdrlen: FeatureSet { FeatureSet(bit: 59) }
  /// Bit 60. The device spreads receive flows by hash.
  @inlinable public static var rss: FeatureSet { FeatureSet(bit: 60) }
  /// Bit 61. The device reports coalesced segments.
  @inlinable public static var rscExt: FeatureSet { FeatureSet(bit: 61) }
  /// Bit 62. The device stands by for another with the same address.
  @inlinable public static var standby: FeatureSet { FeatureSet(bit: 62) }
  /// Bit 63. The configuration has speed and duplex.
  @inlinable public static var speedDuplex: FeatureSet { FeatureSet(bit: 63) }
  /// Bit 64. There are several RSS contexts.
  @inlinable public static var rssContext: FeatureSet { FeatureSet(bit: 64) }
  /// Bit 65. The driver accepts segments in UDP tunnels. The header grows to 24 bytes.
  @inlinable public static var guestUDPTunnelGSO: FeatureSet { FeatureSet(bit: 65) }
  /// Bit 66. The driver accepts partial outer checksums of such segments.
  @inlinable public static var guestUDPTunnelGSOCsum: FeatureSet { FeatureSet(bit: 66) }
  /// Bit 67. The device accepts segments in UDP tunnels. The header grows to 24 bytes.
  @inlinable public static var hostUDPTunnelGSO: FeatureSet { FeatureSet(bit: 67) }
  /// Bit 68. The device accepts partial outer checksums of such segments.
  @inlinable public static var hostUDPTunnelGSOCsum: FeatureSet { FeatureSet(bit: 68) }
  /// Bit 69. The header says where the outer network header is: it grows to 32 bytes.
  @inlinable public static var outNetHeader: FeatureSet { FeatureSet(bit: 69) }
  /// Bit 70. IPsec is offloaded. The header grows to 32 bytes.
  @inlinable public static var ipsec: FeatureSet { FeatureSet(bit: 70) }

  /// Every named bit and its name. Legacy bits (6, 24), SR-IOV (37) and reserved ones have none: they are never accepted.
  static let named: [(bit: Int, name: String)] = [
    (0, "csum"),
    (1, "guestCsum"),
    (2, "ctrlGuestOffloads"),
    (3, "mtu"),
    (5, "mac"),
    (7, "guestTSO4"),
    (8, "guestTSO6"),
    (9, "guestECN"),
    (10, "guestUFO"),
    (11, "hostTSO4"),
    (12, "hostTSO6"),
    (13, "hostECN"),
    (14, "hostUFO"),
    (15, "mrgRxbuf"),
    (16, "status"),
    (17, "ctrlVQ"),
    (18, "ctrlRX"),
    (19, "ctrlVLAN"),
    (20, "ctrlRXExtra"),
    (21, "guestAnnounce"),
    (22, "mq"),
    (23, "ctrlMACAddress"),
    (26, "vhostLogAll"),
    (28, "indirectDesc"),
    (29, "eventIndex"),
    (30, "vhostUserProtocolFeatures"),
    (32, "version1"),
    (33, "accessPlatform"),
    (34, "ringPacked"),
    (35, "inOrder"),
    (36, "orderPlatform"),
    (38, "notificationData"),
    (39, "notifConfigData"),
    (40, "ringReset"),
    (41, "adminVQ"),
    (43, "suspend"),
    (50, "deviceStats"),
    (51, "hashTunnel"),
    (52, "vqNotfCoal"),
    (53, "notfCoal"),
    (54, "guestUSO4"),
    (55, "guestUSO6"),
    (56, "hostUSO"),
    (57, "hashReport"),
    (59, "guestHdrlen"),
    (60, "rss"),
    (61, "rscExt"),
    (62, "standby"),
    (63, "speedDuplex"),
    (64, "rssContext"),
    (65, "guestUDPTunnelGSO"),
    (66, "guestUDPTunnelGSOCsum"),
    (67, "hostUDPTunnelGSO"),
    (68, "hostUDPTunnelGSOCsum"),
    (69, "outNetHeader"),
    (70, "ipsec"),
  ]

  /// All named bits.
  public static let known = named.reduce(into: FeatureSet()) { $0.formUnion(FeatureSet(bit: $1.bit)) }

  /// The bits that vhost uses between front-end and back-end; a driver never sees them.
  public static let vhostOnly: FeatureSet = [.vhostLogAll, .vhostUserProtocolFeatures]

  /// This set without the bits that have no name here: what may be looked at further (VIRTIO 1.4 §2.2.1).
  public var masked: FeatureSet { intersection(Self.known) }
}
