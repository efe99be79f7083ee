internal import Virtio

/// One ring of a `LyingDevice` and how far the device has come with it. On the pair's loop.
///
/// It takes heads from the available ring and gives them back in any order, as an honest device may; `ring` is for the rest.
public final class LyingQueue {
  /// The ring itself, to read and to write anything.
  public let ring: LyingRing
  /// EVENT_IDX was negotiated.
  public let eventIndex: Bool
  private var taken: UInt16 = 0
  private var heads: [UInt16] = []
  /// Chains given back so far; the next used element goes to this position.
  public private(set) var given: UInt16 = 0
  private var called: UInt16 = 0

  init(ring: LyingRing, eventIndex: Bool) {
    self.ring = ring
    self.eventIndex = eventIndex
  }

  /// Heads that the driver has made available and that were not given back, oldest first.
  public var held: [UInt16] {
    var left = ring.availableIndex &- taken
    // No driver can offer more than the ring holds; a test that overwrote the index sees no more either.
    left = min(left, UInt16(truncatingIfNeeded: ring.size))
    while left > 0 {
      heads.append(ring.head(at: taken))
      taken &+= 1
      left -= 1
    }
    return heads
  }

  /// Takes a held chain to be given back or kept for ever; nil when there is no such.
  public func take(at position: Int = 0) -> UInt16? {
    guard held.indices.contains(position) else { return nil }
    return heads.remove(at: position)
  }

  /// Writes used elements of these ids and lengths, true or not, and shows all of them together.
  public func show(_ elements: [(id: UInt32, length: UInt32)]) {
    for element in elements {
      ring.setUsed(at: given, id: element.id, length: element.length)
      given &+= 1
    }
    ring.usedIndex = given
  }

  /// Gives a held chain back, as a device does.
  @discardableResult public func giveBack(at position: Int = 0, length: UInt32 = 0) -> Bool {
    guard let head = take(at: position) else { return false }
    show([(UInt32(head), length)])
    return true
  }

  /// Whether the driver wants to be interrupted for what has been given back since this was last asked (VIRTIO 1.4 §2.7.7).
  public func wantsInterrupt() -> Bool {
    let old = called
    let new = ring.usedIndex
    called = new
    guard eventIndex else { return ring.availableFlags & 1 == 0 }
    return new != old && EventIndex.isPassed(ring.usedEvent, from: old, to: new)
  }

  /// Asks for a kick for every chain that is made available from here on.
  public func armKicks() {
    ring.usedFlags = 0
    ring.availableEvent = ring.availableIndex
  }
}
