internal import Virtio

/// One ring of a `LyingDevice` and how far the device has come with it. On the pair's loop.
///
/// It takes the chains that the driver makes available and gives them back in any order, as an honest device may; `ring` is for the
/// rest. Chains are known by their heads, in a packed ring by their buffer ids.
public final class LyingQueue {
  /// The ring itself, to read and to write anything.
  public let ring: LyingRing
  /// EVENT_IDX was negotiated.
  public let eventIndex: Bool
  private var heads: [UInt16] = []
  /// Chains given back so far.
  public private(set) var given: UInt16 = 0

  // Of a split ring: how far it has taken, and what `given` was when it last asked about an interrupt.
  private var taken: UInt16 = 0
  private var called: UInt16 = 0

  // Of a packed ring: where the driver goes on and where the device does, descriptors given back since it last asked, and what was
  // made available and not given back, which used descriptors are written over.
  private var offered = PackedPlace(RingFormat.packed.firstIndex)
  private var used = PackedPlace(RingFormat.packed.firstIndex)
  private var uncalled = 0
  private var chains: [UInt16: (buffers: [LyingRing.Descriptor], places: Int)] = [:]

  init(ring: LyingRing, eventIndex: Bool) {
    self.ring = ring
    self.eventIndex = eventIndex
  }

  /// Heads that the driver has made available and that were not given back, oldest first.
  public var held: [UInt16] {
    switch ring.format {
    case .split: takeSplit()
    case .packed: takePacked()
    }
    return heads
  }

  private func takeSplit() {
    var left = ring.availableIndex &- taken
    // No driver can offer more than the ring holds; a test that overwrote the index sees no more either.
    left = min(left, UInt16(truncatingIfNeeded: ring.size))
    while left > 0 {
      heads.append(ring.head(at: taken))
      taken &+= 1
      left -= 1
    }
  }

  private func takePacked() {
    while chains.values.reduce(0, { $0 + $1.places }) < ring.size {
      var buffers: [LyingRing.Descriptor] = []
      var place = offered
      var descriptor = ring.packedDescriptor(place.place)
      guard Self.isAvailable(descriptor, at: place) else { return }
      while true {
        if descriptor.flags & 4 != 0 {
          buffers += ring.packedTable(descriptor)
        } else {
          buffers.append(
            .init(address: descriptor.address, length: descriptor.length, flags: descriptor.flags & 3))
        }
        place.advance(of: ring.size)
        guard descriptor.flags & 1 != 0, buffers.count < ring.size else { break }
        descriptor = ring.packedDescriptor(place.place)
      }
      let places = (place.place - offered.place + ring.size - 1) % ring.size + 1
      chains[descriptor.id] = (buffers, places)
      heads.append(descriptor.id)
      offered = place
    }
  }

  private static func isAvailable(_ descriptor: LyingRing.PackedDescriptor, at place: PackedPlace) -> Bool {
    descriptor.flags & 0x8080 == (place.wrap ? 0x80 : 0x8000)
  }

  /// The buffers of a chain that is held, those of an indirect table in place of the one that refers to it.
  public func chain(_ head: UInt16) -> [LyingRing.Descriptor] {
    switch ring.format {
    case .split: ring.chain(head)
    case .packed: chains[head]?.buffers ?? []
    }
  }

  /// Takes a held chain to be given back or kept for ever; nil when there is no such.
  public func take(at position: Int = 0) -> UInt16? {
    guard held.indices.contains(position) else { return nil }
    return heads.remove(at: position)
  }

  /// Writes used elements, or used descriptors, of these ids and lengths, true or not, and shows all of them together.
  public func show(_ elements: [(id: UInt32, length: UInt32)]) {
    switch ring.format {
    case .split:
      for element in elements {
        ring.setUsed(at: given, id: element.id, length: element.length)
        given &+= 1
      }
      ring.usedIndex = given
    case .packed:
      var writes: [() -> Void] = []
      for element in elements {
        let (place, id) = (used, UInt16(truncatingIfNeeded: element.id))
        let flags: UInt16 = (place.wrap ? 0x8080 : 0) | (element.length > 0 ? 2 : 0)
        writes.append { [ring] in
          ring.setPackedDescriptor(place.place, length: element.length, id: id, flags: flags)
        }
        let places = chains.removeValue(forKey: id)?.places ?? 1
        used.advance(places, of: ring.size)
        uncalled += places
        given &+= 1
      }
      // The first of them is what the driver looks at.
      for write in writes.reversed() { write() }
    }
  }

  /// Gives a held chain back, as a device does.
  @discardableResult public func giveBack(at position: Int = 0, length: UInt32 = 0) -> Bool {
    guard let head = take(at: position) else { return false }
    show([(UInt32(head), length)])
    return true
  }

  /// Whether the driver wants to be interrupted for what has been given back since this was last asked (VIRTIO 1.4 §2.7.7,
  /// §2.8.10).
  public func wantsInterrupt() -> Bool {
    switch ring.format {
    case .split:
      let old = called
      let new = ring.usedIndex
      called = new
      guard eventIndex else { return ring.availableFlags & 1 == 0 }
      return new != old && EventIndex.isPassed(ring.usedEvent, from: old, to: new)
    case .packed:
      let count = uncalled
      uncalled = 0
      return used.fulfils(ring.driverWish, by: count, of: ring.size)
    }
  }

  /// Asks for a kick for every chain that is made available from here on.
  public func armKicks() {
    switch ring.format {
    case .split:
      ring.usedFlags = 0
      ring.availableEvent = ring.availableIndex
    case .packed:
      _ = held
      ring.deviceWish = eventIndex ? 2 << 16 | UInt32(offered.index) : 0
    }
  }
}
