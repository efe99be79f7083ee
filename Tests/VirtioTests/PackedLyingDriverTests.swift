import CNetdevSystem
import NetdevTesting
import RingThreads
import Testing
import Virtio

/// The device side of a packed ring against a driver that lies in the shared memory; the split one's are in
/// `SplitDeviceRingTests`.
@Suite struct PackedLyingDriverTests {
  let base = RingPlace.bufferBase

  /// A descriptor to write: available on the first lap.
  private func offer(
    _ place: RingPlace, at index: Int, _ address: UInt64, _ length: UInt32, id: UInt16, flags: UInt16 = 0,
    wrap: Bool = true
  ) {
    let descriptor = unsafe place.block + 16 * index
    unsafe netdev_store_relaxed_u64(descriptor, address)
    unsafe netdev_store_relaxed_u32(descriptor + 8, length)
    unsafe netdev_store_relaxed_u16(descriptor + 12, id)
    unsafe netdev_store_release_u16(descriptor + 14, flags | (wrap ? 0x80 : 0x8000))
  }

  private func used(_ place: RingPlace, at index: Int) -> (length: UInt32, id: UInt16, flags: UInt16) {
    let descriptor = unsafe place.block + 16 * index
    return unsafe (
      netdev_load_relaxed_u32(descriptor + 8), netdev_load_relaxed_u16(descriptor + 12),
      netdev_load_relaxed_u16(descriptor + 14)
    )
  }

  /// Expects the chain to break `rule`, to come back by its id with length 0, and the next one to be served.
  private func expectRefused(
    _ expected: RingError, places: Int, indirect: Bool = true, sourceLocation: SourceLocation = #_sourceLocation,
    _ write: (RingPlace) -> Void
  ) throws {
    for stops in [false, true] {
      let place = try RingPlace(RingSetting(format: .packed, size: 8))
      let memory = try place.memory()
      _ = try place.driver(PackedDriverRing.self)
      var configuration = try unsafe PackedDeviceRing.Configuration(size: 8, block: place.block)
      configuration.indirect = indirect
      configuration.stopsAtMalformedChain = stops
      var ring = try configuration.activate()
      write(place)
      offer(place, at: places, base, 64, id: 77)
      let begins = try ring.begin()
      let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
      #expect(begins && error == expected, sourceLocation: sourceLocation)
      ring.publishUsed()
      let element = used(place, at: 0)
      #expect(
        element.length == 0 && element.id == 7 && element.flags & 0x8080 == 0x8080 && ring.malformedChains == 1,
        sourceLocation: sourceLocation)
      if stops {
        let again = violation { () throws(RingError) in _ = try ring.begin() }
        #expect(again == expected && ring.failure == expected, sourceLocation: sourceLocation)
      } else {
        let chain = try ring.next(in: memory)
        #expect(chain?.head == 77 && chain?.readableLength == 64, sourceLocation: sourceLocation)
      }
    }
  }

  @Test(
    "Device rules 3 to 5, 18: a malformed chain is followed to its end, whose id brings it back; the next is served")
  func malformed() throws {
    let (next, write, table): (UInt16, UInt16, UInt16) = (1, 2, 4)
    try expectRefused(RingError(.bufferUnmapped, 5), places: 1) { offer($0, at: 0, 5, 64, id: 7) }
    try expectRefused(RingError(.bufferUnmapped, .max - 2), places: 2) {
      offer($0, at: 0, .max - 2, 64, id: 1, flags: next)
      offer($0, at: 1, base, 64, id: 7)
    }
    try expectRefused(RingError(.readableAfterWritable, 1), places: 2) {
      offer($0, at: 0, base, 64, id: 1, flags: next | write)
      offer($0, at: 1, base, 64, id: 7)
    }
    try expectRefused(RingError(.indirectNotNegotiated, 4), places: 1, indirect: false) {
      offer($0, at: 0, base, 16, id: 7, flags: table)
    }
    try expectRefused(RingError(.indirectWithNext, 5), places: 2) {
      offer($0, at: 0, base, 16, id: 1, flags: table | next)
      offer($0, at: 1, base, 64, id: 7)
    }
    try expectRefused(RingError(.indirectWithNext, 4), places: 2) {
      offer($0, at: 0, base, 64, id: 1, flags: next)
      offer($0, at: 1, base, 16, id: 7, flags: table)
    }
    for length: UInt32 in [0, 8, 17, 16 * 9] {
      try expectRefused(RingError(.indirectLength, UInt64(length)), places: 1) {
        offer($0, at: 0, base, length, id: 7, flags: table)
      }
    }
    try expectRefused(RingError(.indirectAlignment, base + 4), places: 1) {
      offer($0, at: 0, base + 4, 16, id: 7, flags: table)
    }
    try expectRefused(RingError(.indirectNested, 4), places: 1) {
      unsafe ($0.buffers + 8).storeBytes(of: 4 << 48 | 16, as: UInt64.self)
      offer($0, at: 0, base, 16, id: 7, flags: table)
    }
    try expectRefused(RingError(.bufferUnmapped, 9), places: 1) {
      unsafe $0.buffers.storeBytes(of: 9, as: UInt64.self)
      unsafe ($0.buffers + 8).storeBytes(of: 16, as: UInt64.self)
      offer($0, at: 0, base, 16, id: 7, flags: table)
    }
  }

  @Test("Device rule 3: a chain without an end breaks the ring, and so does more than it holds")
  func endless() throws {
    for size in [1, 2, 3, 8] {
      let place = try RingPlace(RingSetting(format: .packed, size: size))
      let memory = try place.memory()
      _ = try place.driver(PackedDriverRing.self)
      var ring = try place.device(PackedDeviceRing.self)
      for index in 0..<size { offer(place, at: index, base, 1, id: 0, flags: 1) }
      _ = try ring.begin()
      let error = violation { () throws(RingError) in _ = try ring.next(in: memory) }
      #expect(error == RingError(.chainLoop, UInt64(size)) && ring.failure == error)

      // A whole ring is taken; what is marked for the next lap meanwhile is a lie.
      _ = try place.driver(PackedDriverRing.self)
      ring.reset()
      for index in 0..<size { offer(place, at: index, base, 1, id: UInt16(index)) }
      let chains = try ring.take(max: size, in: memory)
      #expect(chains.count == size && !ring.hasMore)
      for index in 0..<size { offer(place, at: index, base, 1, id: 0, wrap: false) }
      #expect(!ring.hasMore && ring.available(upTo: 10) == 0)
      let more = violation { () throws(RingError) in _ = try ring.next(in: memory) }
      #expect(more?.rule == .availIndexJump && ring.failure == more)
      for chain in chains { ring.pushUsed(chain, written: 0) }
      ring.publishUsed()
    }
  }

  @Test("Device rule 15: random memory never traps, never leads outside, never wedges", arguments: 0..<12)
  func random(seed: Int) throws {
    let size = [1, 2, 3, 5, 16, 257][seed % 6]
    let place = try RingPlace(
      RingSetting(format: .packed, size: size, eventIndex: seed % 2 == 0, inOrder: seed % 3 == 0))
    let other = try RingPlace(place.setting)
    let memory = try place.memory()
    _ = try place.driver(PackedDriverRing.self)
    _ = try other.driver(PackedDriverRing.self)
    var ring = try place.device(PackedDeviceRing.self)
    var target = try other.device(PackedDeviceRing.self)
    var random = SeededRandom(seed: UInt64(seed))
    for _ in 0..<5_000 {
      for _ in 0..<4 {
        let word = random.next()
        let flags = UInt16(truncatingIfNeeded: word >> 24) & (word & 1 == 0 ? 7 : 3)
        offer(
          word & 8 == 0 ? place : other, at: Int(word >> 40 & 0xffff) % size, base &+ (word & 0x1f_fff0),
          UInt32(truncatingIfNeeded: word >> 32) & 0xff0, id: UInt16(truncatingIfNeeded: word >> 20),
          flags: flags | (word & 4 == 0 ? 0 : UInt16(truncatingIfNeeded: word) & 0x8080), wrap: word & 2 == 0)
        unsafe place.buffers.storeBytes(of: word, toByteOffset: Int(word & 0xff8), as: UInt64.self)
      }
      do throws(RingError) {
        _ = try target.begin()
        if random.next() % 2 == 0, try ring.begin() {
          _ = ring.relay(to: &target, max: 64, in: memory) { from, to in
            #expect(from.length <= 0xff0 && to.length <= 0xff0)
            return UInt32(min(from.length, to.length))
          }
        }
        let chains = try ring.take(max: size, in: memory)
        if random.next() % 4 == 0, let last = chains.last { try ring.putBack(last) }
        for chain in chains.prefix(ring.outstanding) {
          for segment in 0..<chain.readableCount + chain.writableCount {
            let place = unsafe (chain.segments[segment], place)
            let start = unsafe place.0.base - place.1.buffers
            #expect(start >= 0 && start + place.0.length <= RingPlace.bufferBytes + 16 * RingPlace.tableCapacity * size)
          }
          ring.pushUsed(chain, written: 1)
        }
      } catch {
        if ring.failure != nil || target.failure != nil {
          // Explicitly broken: both sides start again.
          _ = try place.driver(PackedDriverRing.self)
          _ = try other.driver(PackedDriverRing.self)
          ring.reset(startIndex: UInt16(truncatingIfNeeded: random.next()))
          target.reset()
        } else {
          // What was taken before a malformed chain is not known here any more.
          _ = try place.driver(PackedDriverRing.self)
          ring.reset()
        }
      }
      ring.publishUsed()
      target.publishUsed()
      _ = ring.needsCall()
      if ring.armKick() {
        let goesOn = ring.goesOn(in: memory)
        #expect(goesOn)
      }
      ring.disarmKick()
    }
  }
}
