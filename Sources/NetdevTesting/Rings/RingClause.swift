public import Virtio

/// What VIRTIO 1.4 asks of the two sides of a ring, as far as a third who looks at the ring can see it.
///
/// The two formats have the same duties in other words. Where a clause is of one format only, it says so.
public enum RingClause: Int, Sendable, CaseIterable {
  // The driver's side.

  /// There are no more chains with the device than the ring has descriptors, and `avail.idx` of a split ring only goes forward.
  case availableIndex
  /// Split: a head on the available ring is one of the table.
  case head
  /// A chain that the device has is not offered again, no other one has its buffer id, and none of its descriptors is used for
  /// another one.
  case inFlight
  /// `next` leads to a descriptor of its table; a packed ring's chain goes on with descriptors that are available.
  case next
  /// A chain ends, and has no more descriptors than the ring.
  case chainLength
  /// A chain has its readable buffers first.
  case readableFirst
  /// An indirect table goes with the feature, without NEXT, has whole descriptors, at least one, and none that is indirect; of a
  /// packed ring alone in its chain, and with no flag but WRITE in it.
  case indirect
  /// Split: with IN_ORDER descriptors are taken in the order of their table.
  case tableOrder
  /// What the device has is not changed: neither the descriptors of its chains nor their heads on the available ring.
  case changed
  /// What the driver says about interrupts means something: with EVENT_IDX a split ring's flags are 0, else only bit 0; a packed
  /// ring's say one of three things, and a descriptor of the ring only with EVENT_IDX.
  case driverFlags
  /// The driver rings when it has passed the device's event, or, without EVENT_IDX, unless the device asks for nothing.
  case kick
  /// What is published in a turn is announced, or found not to be wanted, by the end of it.
  case kickAtTurnEnd
  /// The header of a frame to transmit is whole, says 0 buffers and nothing that only a device says.
  case transmitHeader

  // The device's side.

  /// No more is used than was offered, and `used.idx` of a split ring only goes forward.
  case usedIndex
  /// What is used is a chain that the device has, named by its head or its buffer id, once.
  case usedChain
  /// Split: with IN_ORDER what is used is used in the order in which it was offered, and a batch is as long as `used.idx` says.
  case usedOrder
  /// A used length is no more than what the device may write.
  case usedLength
  /// What the device says about kicks means something, as ``driverFlags``.
  case deviceFlags
  /// The device interrupts when it has passed the driver's event, or, without EVENT_IDX, unless the driver asks for nothing.
  case call
  /// What is used in a turn is told, or found not to be wanted, by the end of it.
  case callAtTurnEnd
  /// A received frame lies in as many buffers as its first one says, all of them shown together.
  case receivedBuffers

  /// Where it stands; nil when it is not a clause of this format.
  public func citation(_ format: RingFormat) -> String? {
    let section =
      switch format {
      case .split: splitSection
      case .packed: packedSection
      }
    return section.map { "VIRTIO 1.4 §\($0)" }
  }

  private var splitSection: String? {
    switch self {
    case .availableIndex: "2.7.6.1"
    case .head: "2.7.6"
    case .inFlight: "2.7.13.1"
    case .next: "2.7.5"
    case .chainLength: "2.7.5.2"
    case .readableFirst: "2.7.4.2"
    case .indirect: "2.7.5.3.1"
    case .tableOrder: "2.7.5"
    case .changed: "2.7.13"
    case .driverFlags: "2.7.7.1"
    case .kick, .kickAtTurnEnd: "2.7.10"
    case .transmitHeader: "5.1.9.2.1"
    case .usedIndex, .usedChain: "2.7.8"
    case .usedOrder: "2.7.9"
    case .usedLength: "2.7.8.2"
    case .deviceFlags: "2.7.10.2"
    case .call, .callAtTurnEnd: "2.7.7.2"
    case .receivedBuffers: "5.1.9.3.2"
    }
  }

  private var packedSection: String? {
    switch self {
    // Buffer ids are the driver's affair, and places have one order only.
    case .head, .tableOrder, .usedOrder: nil
    case .availableIndex, .changed: "2.8.16"
    case .inFlight: "2.8.21.1"
    case .next, .chainLength, .readableFirst: "2.8.17"
    case .indirect: "2.8.19"
    case .driverFlags, .deviceFlags: "2.8.14"
    case .kick, .kickAtTurnEnd: "2.8.21.2"
    case .transmitHeader: "5.1.9.2.1"
    case .usedIndex: "2.8.15"
    case .usedChain: "2.8.6"
    case .usedLength: "2.8.4"
    case .call, .callAtTurnEnd: "2.8.10"
    case .receivedBuffers: "5.1.9.3.2"
    }
  }
}

/// A clause that one side of a ring has broken.
public struct RingViolation: Error, Sendable, CustomStringConvertible {
  /// Which.
  public let clause: RingClause
  /// The ring's name.
  public let ring: String
  /// The ring's format.
  public let format: RingFormat
  /// What was seen.
  public let seen: String

  /// One line, with the citation.
  public var description: String { "\(ring): \(seen) (\(clause.citation(format) ?? "VIRTIO 1.4"))" }
}
