/// The UDP ports at which a ``Responder`` echoes (RFC 862): none, some, or all.
///
/// Some ports are a bit map of 8 KiB, made once and only read afterwards; copies of the responder share it.
public struct UDPEchoPorts: Sendable, Hashable {
  private enum Selection: Hashable {
    case none, all
    case some
  }

  private let selection: Selection
  private let bitmap: [UInt64]

  private init(_ selection: Selection, bitmap: [UInt64] = []) {
    self.selection = selection
    self.bitmap = bitmap
  }

  /// No echo: datagrams are delivered.
  public static var none: UDPEchoPorts { UDPEchoPorts(.none) }
  /// Echo at every port but 0.
  public static var all: UDPEchoPorts { UDPEchoPorts(.all) }

  /// Echo at these ports; port 0, where nobody listens, is ignored.
  public static func ports(_ ports: some Sequence<UInt16>) -> UDPEchoPorts {
    var bitmap = [UInt64](repeating: 0, count: 1024)
    for port in ports where port != 0 {
      bitmap[Int(port >> 6)] |= 1 << UInt64(port & 63)
    }
    return UDPEchoPorts(.some, bitmap: bitmap)
  }

  /// Whether datagrams to `port` are echoed.
  public func contains(_ port: UInt16) -> Bool {
    switch selection {
    case .none: false
    case .all: port != 0
    case .some: bitmap[Int(port >> 6)] >> UInt64(port & 63) & 1 != 0
    }
  }
}
