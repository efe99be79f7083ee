import FuzzSupport
import Virtio

/// Our device's ring opposite a driver that writes what the input says.
///
/// Promises: the segments of a chain lie in the driver's regions and are what the rules allow; taking ends; what broke the
/// ring stays broken; the ring counts what is out as its owner does.
func runDeviceRing(_ input: inout InputReader, _ format: RingFormat) {
  switch format {
  case .split: run(SplitDeviceRing.self, &input)
  case .packed: run(PackedDeviceRing.self, &input)
  }
}

private func run<Ring: DeviceRing & ~Copyable>(_: Ring.Type, _ input: inout InputReader) {
  let flags = input.byte()
  let world = GuestWorld(readOnlyFirst: flags & 0x40 != 0)
  let memory = world.memory()
  let choice = input.choice(8)
  let size = Ring.format == .split ? 1 << choice : (1 << choice) + (flags & 0x40 == 0 ? 0 : choice)
  var raw = RawRing(Ring.format, size: size, edge: flags & 1 == 0 ? .end : .start)
  if flags & 0x80 != 0 {
    // The areas are where the driver says, among its own buffers; where that cannot be, they are left where they were.
    let places = [GuestWorld.address(&input) & ~15, GuestWorld.address(&input) & ~3, GuestWorld.address(&input) & ~3]
    let found = try? RingAreas(
      Ring.format, size: size, descriptorAddress: places[0], driverAddress: places[1], deviceAddress: places[2],
      memory: memory)
    if let found, world.canWrite(places[0], raw.layout.descriptorBytes),
      world.canWrite(places[1], raw.layout.driverBytes)
    {
      raw = RawRing(raw.layout, found.descriptors, found.driver, found.device)
    }
  }
  var configuration = Ring.Configuration(raw.areas)
  configuration.eventIndex = flags & 2 != 0
  configuration.inOrder = flags & 4 != 0
  configuration.indirect = flags & 8 != 0
  configuration.stopsAtMalformedChain = flags & 16 != 0
  configuration.startIndex = start(input.number(), Ring.format, size)
  configuration.segmentCapacity = flags & 32 != 0 ? 2 * size : 0
  let first = configuration.startIndex
  // Areas of the driver's choice may overlap.
  guard var ring = try? configuration.activate() else { return }
  var script = DeviceRingScript<Ring>(raw, world, first)
  while !input.isAtEnd { script.step(&ring, memory, &input) }
}

private struct DeviceRingScript<Ring: DeviceRing & ~Copyable> {
  private let raw: RawRing
  private let world: GuestWorld
  /// What the driver has offered so far: an index of a split ring, a position of a packed one.
  private var driver: UInt16
  private var position: RawPosition
  /// Chains that were taken and not returned, oldest first.
  private var taken: [DescriptorChain] = []
  private var failure: RingError?

  init(_ raw: RawRing, _ world: GuestWorld, _ start: UInt16) {
    self.raw = raw
    self.world = world
    driver = start
    position = RawPosition(start)
  }

  mutating func step(_ ring: inout Ring, _ memory: borrowing GuestMemory, _ input: inout InputReader) {
    switch input.choice(22) {
    case 0, 1: setDescriptor(Int(input.byte()), GuestWorld.descriptor(&input))
    case 2: world.writeTableEntry(&input)
    case 3, 4: offer(UInt16(input.byte()) % UInt16(raw.size))
    case 5: offer(input.number())
    case 6, 7: if raw.format == .split { raw.availIndex = driver }
    case 8: if raw.format == .split { raw.availIndex = input.number() }
    case 9: raw.scribble(at: input.number(), input.byte())
    case 10: begin(&ring)
    case 11, 12: take(&ring, memory, &input)
    case 13: giveBack(&ring, Int(input.byte()), written: input.number())
    case 14:
      ring.publishUsed()
      _ = ring.needsCall()
    case 15: _ = ring.armKick()
    case 16: ring.disarmKick()
    case 17: putBack(&ring, Int(input.byte() & 15))
    case 18: relay(&ring, memory, &input)
    case 19: serve(&ring, memory, &input)
    case 20: giveBack(&ring, Int(input.byte() & 15), written: 0)
    default:
      switch input.byte() {
      case 0..<16: reset(&ring, input.number())
      case 16..<24: ring.fail(RingError(.stopped, 1))
      default: break
      }
    }
    promise(failure == nil || ring.failure == failure, "the first cause stays: \(failure as Any)")
    failure = ring.failure
    promise(ring.isBroken || ring.outstanding == taken.count, "\(taken.count) chains are out, not \(ring.outstanding)")
    promise(ring.available(upTo: 1 << 20) <= raw.size, "no more chains are seen than there are")
  }

  /// A descriptor of the table, or the next one of a packed ring, which is offered by that; a place of it now and then.
  private mutating func setDescriptor(_ index: Int, _ descriptor: RawDescriptor) {
    guard raw.format == .packed else { return raw.setDescriptor(index, descriptor) }
    raw.setPacked(
      index & 7 == 0 ? index : position.place, address: descriptor.address, length: descriptor.length,
      id: descriptor.next, flags: descriptor.flags & 0x7 | position.available)
    if index & 7 != 0 { position.advance(1, raw.size) }
  }

  private mutating func offer(_ head: UInt16) {
    switch raw.format {
    case .split:
      raw.setHead(driver, head)
      driver &+= 1
    case .packed:
      raw.setPacked(
        position.place, address: GuestWorld.base, length: 64, id: head, flags: position.available | head & 2)
      position.advance(1, raw.size)
    }
  }

  // MARK: Taking

  private func begin(_ ring: inout Ring) {
    // An owner begins when it has returned what it took, or after: both are allowed.
    do throws(RingError) {
      let isMore = try ring.begin()
      promise(isMore == ring.hasMore, "a batch has what it begins with")
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  private mutating func take(_ ring: inout Ring, _ memory: borrowing GuestMemory, _ input: inout InputReader) {
    let (before, malformed) = (ring.taken, ring.malformedChains)
    do throws(RingError) {
      guard let chain = try ring.next(in: memory) else { return }
      examine(chain, &input)
      taken.append(chain)
      promise(ring.taken == before &+ 1, "one chain is taken")
    } catch {
      promise(ring.isBroken || ring.malformedChains == malformed + 1, "a malformed chain is behind")
    }
  }

  private func examine(_ chain: DescriptorChain, _ input: inout InputReader) {
    promise(raw.format == .packed || Int(chain.head) < raw.size, "a head is one of the ring's")
    let count = chain.readableCount + chain.writableCount
    promise(count > 0 && count <= raw.size, "a chain has no more buffers than the ring has descriptors")
    var (readable, writable) = (0, 0)
    for segment in chain.readable {
      world.check(segment, forWriting: false)
      readable += segment.length
    }
    for segment in chain.writable {
      world.check(segment, forWriting: true)
      writable += segment.length
    }
    promise(readable + writable <= 1 << 32, "a chain is no longer than 2^32 bytes")
    promise(chain.readableLength == readable && chain.writableLength == writable, "lengths are sums")
    let (offset, wanted) = (Int(input.byte()), Int(input.byte()))
    let room = FencedMemory(max(wanted, 1), alignment: 1)
    let copied = chain.copyBytes(from: offset, into: UnsafeMutableRawBufferPointer(start: room.start, count: wanted))
    promise(copied == min(wanted, max(readable - offset, 0)), "what is there is copied")
    let written = chain.write(UnsafeRawBufferPointer(start: room.start, count: wanted), at: offset)
    promise(written == min(wanted, max(writable - offset, 0)), "what has room is written")
  }

  /// To another ring, which has nothing but buffers in one piece.
  private mutating func relay(_ ring: inout Ring, _ memory: borrowing GuestMemory, _ input: inout InputReader) {
    giveBack(&ring, taken.count, written: 0)
    let room = RawRing(raw.format, size: raw.size, edge: .end)
    // The ring's memory goes with it.
    defer { withExtendedLifetime(room) {} }
    guard DriverTwin.post(room), var target = try? Ring.Configuration(room.areas).activate() else { return }
    target.refresh()
    guard ring.refresh() else { return }
    let limit = Int(input.byte())
    let count = ring.relay(to: &target, max: limit, in: memory) { source, destination in
      world.check(source, forWriting: false)
      world.check(destination, forWriting: true)
      return UInt32(min(source.length, destination.length))
    }
    promise(count <= limit && target.outstanding == 0, "what is carried has come back")
  }

  private mutating func serve(_ ring: inout Ring, _ memory: borrowing GuestMemory, _ input: inout InputReader) {
    // Chains of earlier batches would be overtaken.
    giveBack(&ring, taken.count, written: 0)
    let limit = Int(input.byte())
    guard ring.refresh() else { return }
    if limit & 1 == 0 { return serveSound(&ring, memory, &input, limit) }
    for _ in 0..<limit {
      let (before, malformed) = (ring.taken, ring.malformedChains)
      do throws(RingError) {
        guard let chain = try ring.next(in: memory) else { return }
        examine(chain, &input)
        ring.pushUsed(chain, written: UInt32(truncatingIfNeeded: chain.writableLength))
      } catch {
        promise(ring.isBroken || ring.malformedChains == malformed + 1, "a malformed chain is behind")
      }
      promise(ring.isBroken || ring.taken == before &+ 1, "one chain is taken")
    }
  }

  /// As an engine does it: what breaks a rule is passed over.
  private mutating func serveSound(
    _ ring: inout Ring, _ memory: borrowing GuestMemory, _ input: inout InputReader, _ limit: Int
  ) {
    for _ in 0..<limit {
      let (before, malformed) = (ring.taken, ring.malformedChains)
      guard let chain = ring.take(in: memory) else {
        let behind = UInt64(ring.taken &- before)
        return promise(ring.isBroken || behind == ring.malformedChains - malformed, "what is passed over is counted")
      }
      promise(!ring.isBroken, "a broken ring gives nothing")
      examine(chain, &input)
      ring.pushUsed(chain, written: UInt32(truncatingIfNeeded: chain.writableLength))
    }
  }

  // MARK: Returning

  private mutating func giveBack(_ ring: inout Ring, _ count: Int, written: UInt32) {
    let count = min(count, taken.count)
    for chain in taken.prefix(count) { ring.pushUsed(chain, written: written) }
    taken.removeFirst(count)
  }

  private mutating func putBack(_ ring: inout Ring, _ count: Int) {
    for _ in 0..<count {
      guard let last = taken.last else { return }
      do throws(RingError) {
        try ring.putBack(last)
        taken.removeLast()
      } catch {
        promise(error.rule == .putBack, "what cannot be put back is said so")
        return
      }
    }
  }

  private mutating func reset(_ ring: inout Ring, _ index: UInt16) {
    let first = start(index, raw.format, raw.size)
    ring.reset(startIndex: first)
    taken = []
    driver = first
    position = RawPosition(first)
    if raw.format == .split { raw.availIndex = first }
    failure = nil
    promise(!ring.isBroken && ring.outstanding == 0, "a ring that was reset is as new")
  }
}

/// A driver that posts buffers to receive into.
private enum DriverTwin {
  /// Fills a ring; false when it cannot be laid.
  static func post(_ raw: RawRing) -> Bool {
    switch raw.format {
    case .split: fill(SplitDriverRing.self, raw)
    case .packed: fill(PackedDriverRing.self, raw)
    }
  }

  private static func fill<Ring: DriverRing & ~Copyable>(_: Ring.Type, _ raw: RawRing) -> Bool {
    guard var ring = try? Ring.Configuration(raw.areas).activate() else { return false }
    _ = ring.add(count: raw.size, writable: true) {
      RingBuffer(address: GuestWorld.base, length: 2048, token: UInt64($0))
    }
    ring.publish()
    return true
  }
}
