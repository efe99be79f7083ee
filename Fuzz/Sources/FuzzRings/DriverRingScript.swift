import FuzzSupport
import Virtio

/// Our driver's ring opposite a device that writes what the input says, honest completions among it.
///
/// Promises: what comes back was out, comes back once, and is no longer than what could be written; what broke the ring stays
/// broken with the same cause; a drain brings every token that is out, once; then the ring works again.
func runDriverRing(_ input: inout InputReader, _ format: RingFormat) {
  switch format {
  case .split: run(SplitDriverRing.self, &input)
  case .packed: run(PackedDriverRing.self, &input)
  }
}

private func run<Ring: DriverRing & ~Copyable>(_: Ring.Type, _ input: inout InputReader) {
  let flags = input.byte()
  let choice = input.choice(9)
  // A packed ring has any size.
  let size = Ring.format == .split ? 1 << choice : (1 << choice) + (flags & 64 == 0 ? 0 : choice)
  let raw = RawRing(Ring.format, size: size, edge: flags & 1 == 0 ? .end : .start)
  var configuration = Ring.Configuration(raw.areas)
  configuration.eventIndex = flags & 2 != 0
  configuration.inOrder = flags & 4 != 0
  configuration.startIndex = start(input.number(), Ring.format, size)
  let capacity = 2 + Int(flags >> 4)
  let tables = FencedMemory(16 * capacity * size, edge: .end)
  if flags & 8 != 0 {
    configuration.indirect = IndirectTables(host: tables.start, address: 0x10_0000, capacity: capacity)
  }
  let first = configuration.startIndex
  var ring: Ring
  do throws(RingError) { ring = try configuration.activate() } catch {
    violated("a right configuration is taken: \(error)")
  }
  var script = DriverRingScript<Ring>(raw, first)
  while !input.isAtEnd { script.step(&ring, &input) }
  script.drain(&ring, inOrder: false, startIndex: first)
}

/// An index that rings of this size can start at.
func start(_ index: UInt16, _ format: RingFormat, _ size: Int) -> UInt16 {
  format == .split ? index : UInt16(Int(index & 0x7fff) % size) | index & 0x8000
}

private struct DriverRingScript<Ring: DriverRing & ~Copyable> {
  private let raw: RawRing
  /// What may be written to each chain that is out.
  private var out: [UInt64: UInt64] = [:]
  private var nextToken: UInt64 = 1
  private var failure: RingError?
  /// How far an honest device has come: an index of a split ring; what it has been offered and used of a packed one.
  private var device: UInt16
  private var offered: RawPosition
  private var used: RawPosition
  private var output: UnsafeMutablePointer<UsedBuffer> { room.start.assumingMemoryBound(to: UsedBuffer.self) }
  private let room: FencedMemory

  init(_ raw: RawRing, _ start: UInt16) {
    self.raw = raw
    device = start
    (offered, used) = (RawPosition(start), RawPosition(start))
    room = FencedMemory(MemoryLayout<UsedBuffer>.stride * raw.size)
  }

  mutating func step(_ ring: inout Ring, _ input: inout InputReader) {
    switch input.choice(20) {
    case 0, 1: addOne(&ring, &input)
    case 2: addBurst(&ring, &input)
    case 3: addChain(&ring, &input)
    case 4, 5: ring.publish()
    case 6: _ = ring.needsKick()
    case 7, 8: completeHonestly(Int(input.byte() & 7) + 1)
    case 9: claim(at: input.number(), id: UInt32(input.number(UInt16.self)), length: input.number())
    case 10: claim(at: device, id: input.number(), length: UInt32(input.byte()))
    case 11: goOn(by: UInt16(input.byte() & 3))
    case 12: goOn(to: input.number())
    case 13: raw.scribble(at: input.number(), input.byte())
    case 14, 15: takeOne(&ring)
    case 16: takeMany(&ring, Int(input.byte()))
    case 17: takeSingles(&ring, max: Int(input.byte()), refusedFrom: Int(input.byte() & 15))
    case 18: arm(&ring, input.byte())
    default:
      switch input.byte() {
      case 0..<16: drain(&ring, inOrder: input.byte() & 1 == 0, startIndex: input.number())
      case 16..<24: fail(&ring)
      default: count(&ring)
      }
    }
    promise(ring.failure == failure || failure == nil, "the first cause stays: \(failure as Any)")
    failure = ring.failure
  }

  // MARK: Adding

  private mutating func addOne(_ ring: inout Ring, _ input: inout InputReader) {
    let isWritable = input.byte() & 1 != 0
    let length = UInt32(input.byte()) << UInt32(input.byte() % 25)
    if ring.add(address: input.number(), length: length, writable: isWritable, token: nextToken) {
      noteOut(writable: isWritable ? UInt64(length) : 0)
    }
  }

  private mutating func addBurst(_ ring: inout Ring, _ input: inout InputReader) {
    let (wanted, given, isWritable) = (Int(input.byte()), Int(input.byte()), input.byte() & 1 != 0)
    let first = nextToken
    let done = ring.add(count: wanted, writable: isWritable) { position in
      position < given ? RingBuffer(address: UInt64(position), length: 64, token: first + UInt64(position)) : nil
    }
    promise(done <= min(wanted, given, raw.size), "a burst is no longer than asked for")
    for _ in 0..<done { noteOut(writable: isWritable ? 64 : 0) }
  }

  private mutating func addChain(_ ring: inout Ring, _ input: inout InputReader) {
    let shift = UInt32(input.byte() % 26)
    let readable = (0..<input.choice(12)).map { _ in RingBuffer(address: 1 << 40, length: UInt32(input.byte()) << shift)
    }
    let writable = (0..<input.choice(12)).map { _ in RingBuffer(address: 1 << 41, length: UInt32(input.byte()) << shift)
    }
    do throws(RingError) {
      if try ring.add(readable: readable.span, writable: writable.span, token: nextToken) {
        noteOut(writable: writable.reduce(0) { $0 + UInt64($1.length) })
      }
    } catch {
      promise([.chainEmpty, .chainTooLong, .chainTooLarge].contains(error.rule), "a caller's error is one: \(error)")
    }
  }

  private mutating func noteOut(writable: UInt64) {
    promise(failure == nil, "a broken ring takes nothing")
    promise(out.count < raw.size, "a ring has no more chains than descriptors")
    out[nextToken] = writable
    nextToken += 1
  }

  // MARK: The device

  /// Returns chains that are offered, as long as there are any, with no more written than there is room for.
  private mutating func completeHonestly(_ count: Int) {
    for _ in 0..<count {
      switch raw.format {
      case .split:
        guard device != raw.availIndex else { break }
        raw.setUsed(device, id: UInt32(raw.head(device)), length: 0)
        device &+= 1
        raw.usedIndex = device
      case .packed:
        var places = 0
        var descriptor = raw.packed(offered.place)
        guard descriptor.flags & 0x8080 == offered.available else { break }
        while true {
          places += 1
          offered.advance(1, raw.size)
          guard descriptor.flags & 1 != 0, places < raw.size else { break }
          descriptor = raw.packed(offered.place)
        }
        raw.setPacked(used.place, length: 0, id: descriptor.id, flags: used.used)
        used.advance(places, raw.size)
      }
    }
  }

  /// A used element, or a used descriptor of this lap, of whatever the input says.
  private mutating func claim(at index: UInt16, id: UInt32, length: UInt32) {
    switch raw.format {
    case .split: raw.setUsed(index, id: id, length: length)
    case .packed:
      let place = index & 1 == 0 ? used.place : Int(index)
      raw.setPacked(
        place, length: length, id: UInt16(truncatingIfNeeded: id), flags: used.used | UInt16(id >> 16) & 0x8007)
    }
  }

  private mutating func goOn(by count: UInt16) {
    switch raw.format {
    case .split: raw.usedIndex = raw.usedIndex &+ count
    case .packed: used.advance(Int(count), raw.size)
    }
  }

  private mutating func goOn(to index: UInt16) {
    switch raw.format {
    case .split: raw.usedIndex = index
    case .packed: used = RawPosition(start(index, .packed, raw.size))
    }
  }

  // MARK: Taking back

  private mutating func took(_ used: UsedBuffer) {
    promise(failure == nil, "a broken ring gives nothing back")
    guard let writable = out.removeValue(forKey: used.token) else { violated("token \(used.token) is out") }
    promise(UInt64(used.written) <= writable, "\(used.written) bytes fit into \(writable)")
  }

  private mutating func takeOne(_ ring: inout Ring) {
    do throws(RingError) {
      if let used = try ring.nextUsed() { took(used) }
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  /// As the driver does: by the burst, and one by one what is not of that kind.
  private mutating func takeMany(_ ring: inout Ring, _ limit: Int) {
    let limit = min(limit, raw.size)
    do throws(RingError) {
      try ring.look()
      var count = 0
      while count < limit {
        let output = output + count
        let taken = ring.takeSingles(max: limit - count) { position, token, written in
          output[position] = UsedBuffer(token: token, written: written)
          return true
        }
        promise(taken <= limit - count, "no more are taken than there is room for")
        for index in 0..<taken { took(output[index]) }
        count += taken
        guard count < limit, ring.hasOthers, let used = try ring.nextUsed() else { return }
        took(used)
        count += 1
      }
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  private mutating func takeSingles(_ ring: inout Ring, max: Int, refusedFrom: Int) {
    var taken: [UsedBuffer] = []
    do throws(RingError) {
      try ring.look()
      let count = ring.takeSingles(max: max) { position, token, written in
        promise(position == taken.count, "positions count up")
        if position >= refusedFrom { return false }
        taken.append(UsedBuffer(token: token, written: written))
        return true
      }
      promise(count == taken.count && count <= max, "as many are taken as were accepted")
      for used in taken { took(used) }
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  // MARK: The rest

  private func arm(_ ring: inout Ring, _ how: UInt8) {
    switch how & 3 {
    case 0: ring.disarmInterrupt()
    case 1: _ = ring.armInterruptDelayed()
    default: _ = ring.armInterrupt(after: Int(how >> 2))
    }
  }

  private func count(_ ring: inout Ring) {
    promise(ring.inFlight + ring.unpublished == out.count || ring.isBroken, "as many are counted as are out")
    promise(ring.freeCount <= raw.size, "no more are free than there are")
    _ = (ring.hasUsed, ring.isUsedUp, ring.hasUnannounced, ring.publishedIndex)
  }

  private func fail(_ ring: inout Ring) {
    ring.fail(RingError(.usedIdOutOfRange, 7))
    promise(!ring.add(address: 0, length: 1, writable: false, token: 0), "a broken ring takes nothing")
  }

  mutating func drain(_ ring: inout Ring, inOrder: Bool, startIndex index: UInt16) {
    let startIndex = start(index, Ring.format, raw.size)
    var tokens: [UInt64] = []
    let count = inOrder ? ring.drainInOrder { tokens.append($0) } : ring.drain { tokens.append($0) }
    promise(
      count == tokens.count && Set(tokens) == Set(out.keys) && tokens.count == out.count, "a drain brings what is out")
    out = [:]
    do throws(RingError) { try ring.reset(startIndex: startIndex) } catch {
      violated("a drained ring is laid anew: \(error)")
    }
    failure = nil
    device = startIndex
    (offered, used) = (RawPosition(startIndex), RawPosition(startIndex))
    // The whole ring can be used again.
    for id in 0..<raw.size {
      promise(
        ring.add(address: 0, length: 1, writable: false, token: UInt64(id)), "a new ring has room for \(raw.size)")
    }
    promise(!ring.add(address: 0, length: 1, writable: false, token: 0), "a full ring takes nothing")
    ring.drain { _ in }
    try? ring.reset(startIndex: startIndex)
  }
}
