import FuzzSupport
import Virtio

/// Our device's ring opposite a driver that writes what the input says.
///
/// Promises: the segments of a chain lie in the driver's regions and are what the rules allow; taking ends; what broke the
/// ring stays broken; the ring counts what is out as its owner does.
func runDeviceRing(_ input: inout InputReader) {
  let flags = input.byte()
  let world = GuestWorld(readOnlyFirst: flags & 0x40 != 0)
  let memory = world.memory()
  var areas = RingAreas(size: 1 << input.choice(8), edge: flags & 1 == 0 ? .end : .start)
  var configuration = SplitDeviceRing.Configuration(
    size: areas.size, descriptors: areas.descriptors, avail: areas.avail, used: areas.used)
  if flags & 0x80 != 0 {
    // The areas are where the driver says, among its own buffers; where that cannot be, they are left where they were.
    let places = [GuestWorld.address(&input) & ~15, GuestWorld.address(&input) & ~1, GuestWorld.address(&input) & ~3]
    let found = try? SplitDeviceRing.Configuration(
      size: areas.size, descriptorAddress: places[0], availAddress: places[1], usedAddress: places[2], memory: memory)
    if let found, world.canWrite(places[0], areas.layout.descriptorBytes),
      world.canWrite(places[1], areas.layout.availBytes)
    {
      configuration = found
      areas = RingAreas(areas.layout, configuration.descriptors, configuration.avail, configuration.used)
    }
  }
  configuration.eventIndex = flags & 2 != 0
  configuration.inOrder = flags & 4 != 0
  configuration.indirect = flags & 8 != 0
  configuration.stopsAtMalformedChain = flags & 16 != 0
  configuration.startIndex = input.number()
  configuration.segmentCapacity = flags & 32 != 0 ? 2 * areas.size : 0
  let start = configuration.startIndex
  // Areas of the driver's choice may overlap.
  guard var ring = try? configuration.activate() else { return }
  var script = DeviceRingScript(areas, world, start)
  while !input.isAtEnd { script.step(&ring, memory, &input) }
}

private struct DeviceRingScript {
  private let areas: RingAreas
  private let world: GuestWorld
  /// What the driver has offered so far.
  private var driver: UInt16
  /// Heads that were taken and not returned, oldest first.
  private var taken: [UInt16] = []
  private var failure: RingError?
  private let chains: FencedMemory

  init(_ areas: RingAreas, _ world: GuestWorld, _ start: UInt16) {
    self.areas = areas
    self.world = world
    driver = start
    chains = FencedMemory(MemoryLayout<DescriptorChain>.stride * areas.size)
  }

  mutating func step(_ ring: inout SplitDeviceRing, _ memory: borrowing GuestMemory, _ input: inout InputReader) {
    switch input.choice(22) {
    case 0, 1: areas.setDescriptor(Int(input.byte()), GuestWorld.descriptor(&input))
    case 2: world.writeTableEntry(&input)
    case 3, 4: offer(UInt16(input.byte()) % UInt16(areas.size))
    case 5: offer(input.number())
    case 6, 7: areas.availIndex = driver
    case 8: areas.availIndex = input.number()
    case 9: areas.scribble(at: input.number(), input.byte())
    case 10: begin(&ring)
    case 11, 12: take(&ring, memory, &input)
    case 13: giveBack(&ring, Int(input.byte()), written: input.number())
    case 14:
      ring.publishUsed()
      _ = ring.needsCall()
    case 15: _ = ring.armKick()
    case 16: ring.disarmKick()
    case 17: rewind(&ring, Int(input.byte() & 15))
    case 18: pop(&ring, memory, &input)
    case 19: serve(&ring, memory, &input)
    case 20: batch(&ring, &input)
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
    promise(ring.seen <= areas.size, "no more chains are seen than there are")
  }

  private mutating func offer(_ head: UInt16) {
    areas.setHead(driver, head)
    driver &+= 1
  }

  // MARK: Taking

  private func begin(_ ring: inout SplitDeviceRing) {
    // An owner begins when it has returned what it took, or after: both are allowed.
    do throws(RingError) {
      let count = try ring.begin()
      promise(count <= areas.size && count == ring.seen, "a batch is no longer than the ring")
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  private mutating func take(
    _ ring: inout SplitDeviceRing, _ memory: borrowing GuestMemory, _ input: inout InputReader
  ) {
    let seen = ring.seen
    do throws(RingError) {
      guard let chain = try ring.next(in: memory) else { return }
      examine(chain, &input)
      taken.append(chain.head)
      promise(ring.seen == seen - 1, "one chain is taken")
    } catch {
      promise(ring.isBroken || ring.seen == seen - 1, "a malformed chain is behind")
    }
  }

  private func examine(_ chain: DescriptorChain, _ input: inout InputReader) {
    promise(Int(chain.head) < areas.size, "a head is one of the ring's")
    let count = chain.readableCount + chain.writableCount
    promise(count > 0 && count <= areas.size, "a chain has no more buffers than the ring has descriptors")
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

  private mutating func pop(
    _ ring: inout SplitDeviceRing, _ memory: borrowing GuestMemory, _ input: inout InputReader
  ) {
    let limit = min(Int(input.byte()), areas.size)
    let output = chains.start.assumingMemoryBound(to: DescriptorChain.self)
    do throws(RingError) {
      let count = try ring.pop(into: output, max: limit, in: memory)
      promise(count <= limit, "no more are taken than there is room for")
      for index in 0..<count {
        examine(output[index], &input)
        taken.append(output[index].head)
      }
    } catch {}
  }

  private mutating func serve(
    _ ring: inout SplitDeviceRing, _ memory: borrowing GuestMemory, _ input: inout InputReader
  ) {
    // Chains of earlier batches would be overtaken.
    giveBack(&ring, taken.count, written: 0)
    let limit = Int(input.byte())
    var count = 0
    do throws(RingError) {
      let served = try ring.serve(max: limit, in: memory) { chain in
        examine(chain, &input)
        count += 1
        return UInt32(truncatingIfNeeded: chain.writableLength)
      }
      promise(served == count && served <= limit, "as many are served as were given")
    } catch {
      promise(count == 0, "an error comes instead of chains, not with them")
    }
  }

  // MARK: Returning

  private mutating func giveBack(_ ring: inout SplitDeviceRing, _ count: Int, written: UInt32) {
    let count = min(count, taken.count)
    for head in taken.prefix(count) { ring.pushUsed(head: head, written: written) }
    taken.removeFirst(count)
  }

  private mutating func rewind(_ ring: inout SplitDeviceRing, _ count: Int) {
    do throws(RingError) {
      try ring.rewind(count)
      promise(count <= taken.count, "only what was taken is put back")
      taken.removeLast(count)
    } catch {
      promise(error.rule == .rewind, "what cannot be put back is said so")
    }
  }

  /// Returns several by one call.
  private mutating func batch(_ ring: inout SplitDeviceRing, _ input: inout InputReader) {
    let count = min(Int(input.byte() & 15), taken.count)
    ring.pushUsed(count: count) { (taken[$0], 0) }
    taken.removeFirst(count)
  }

  private mutating func reset(_ ring: inout SplitDeviceRing, _ start: UInt16) {
    ring.reset(startIndex: start)
    taken = []
    driver = start
    areas.availIndex = start
    failure = nil
    promise(!ring.isBroken && ring.outstanding == 0, "a ring that was reset is as new")
  }
}
