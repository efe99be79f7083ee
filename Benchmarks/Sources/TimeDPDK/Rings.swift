/// The rings that driver and device agree on.
enum Rings: String, CaseIterable, Sendable {
  case split
  case splitInOrder = "split-in-order"
  case packed
  case packedInOrder = "packed-in-order"

  var title: String {
    switch self {
    case .split: "split"
    case .splitInOrder: "split, in order"
    case .packed: "packed"
    case .packedInOrder: "packed, in order"
    }
  }

  var isPacked: Bool { self == .packed || self == .packedInOrder }
  var isInOrder: Bool { self == .splitInOrder || self == .packedInOrder }

  /// As a device's URL has it.
  var query: String { "packed=\(isPacked ? 1 : 0)&in_order=\(isInOrder ? 1 : 0)" }

  /// As the arguments of DPDK's virtio-user port have it.
  var arguments: String { "packed_vq=\(isPacked ? 1 : 0),in_order=\(isInOrder ? 1 : 0)" }

  /// The feature bits of them, RING_PACKED and IN_ORDER.
  var features: UInt64 { (isPacked ? 1 << 34 : 0) | (isInOrder ? 1 << 35 : 0) }

  /// Feature bits without those of rings.
  static func without(_ features: UInt64) -> UInt64 { features & ~(1 << 34 | 1 << 35) }
}
