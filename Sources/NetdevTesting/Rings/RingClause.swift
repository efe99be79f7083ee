/// What VIRTIO 1.4 asks of the two sides of a split ring, as far as a third who looks at the ring can see it.
public enum RingClause: Int, Sendable, CaseIterable {
  // The driver's side.

  /// `avail.idx` only goes forward, and there are no more chains with the device than the ring has descriptors.
  case availableIndex
  /// A head on the available ring is one of the table.
  case head
  /// A chain that the device has is not offered again, and none of its descriptors is used for another one.
  case inFlight
  /// `next` leads to a descriptor of its table.
  case next
  /// A chain ends, and has no more descriptors than the ring.
  case chainLength
  /// A chain has its readable buffers first.
  case readableFirst
  /// An indirect table goes with the feature, without NEXT, has whole descriptors, at least one, and none that is indirect.
  case indirect
  /// What the device has is not changed: neither the descriptors of its chains nor their heads on the available ring.
  case changed
  /// With EVENT_IDX the driver's flags are 0; else only bit 0 means anything.
  case driverFlags
  /// The driver rings when it has passed the device's event, or, without EVENT_IDX, unless the device asks for nothing.
  case kick
  /// What is published in a turn is announced, or found not to be wanted, by the end of it.
  case kickAtTurnEnd
  /// The header of a frame to transmit is whole, says 0 buffers and nothing that only a device says.
  case transmitHeader

  // The device's side.

  /// `used.idx` only goes forward, and no further than what was offered.
  case usedIndex
  /// What is used is a chain that the device has, named by its head, once.
  case usedChain
  /// A used length is no more than what the device may write.
  case usedLength
  /// With EVENT_IDX the device's flags are 0; else only bit 0 means anything.
  case deviceFlags
  /// The device interrupts when it has passed the driver's event, or, without EVENT_IDX, unless the driver asks for nothing.
  case call
  /// What is used in a turn is told, or found not to be wanted, by the end of it.
  case callAtTurnEnd
  /// A received frame lies in as many buffers as its first one says, all of them shown together.
  case receivedBuffers

  /// Where it stands.
  public var citation: String {
    let section =
      switch self {
      case .availableIndex: "2.7.6.1"
      case .head: "2.7.6"
      case .inFlight: "2.7.13.1"
      case .next: "2.7.5"
      case .chainLength: "2.7.5.2"
      case .readableFirst: "2.7.4.2"
      case .indirect: "2.7.5.3.1"
      case .changed: "2.7.13"
      case .driverFlags: "2.7.7.1"
      case .kick, .kickAtTurnEnd: "2.7.10"
      case .transmitHeader: "5.1.9.2.1"
      case .usedIndex, .usedChain: "2.7.8"
      case .usedLength: "2.7.8.2"
      case .deviceFlags: "2.7.10.2"
      case .call, .callAtTurnEnd: "2.7.7.2"
      case .receivedBuffers: "5.1.9.3.2"
      }
    return "VIRTIO 1.4 §\(section)"
  }
}

/// A clause that one side of a ring has broken.
public struct RingViolation: Error, Sendable, CustomStringConvertible {
  /// Which.
  public let clause: RingClause
  /// The ring's name.
  public let ring: String
  /// What was seen.
  public let seen: String

  /// One line, with the citation.
  public var description: String { "\(ring): \(seen) (\(clause.citation))" }
}
