import FuzzSupport
import Virtio

/// Our driver's ring opposite a device that writes what the input says, honest completions among it.
///
/// Promises: what comes back was out, comes back once, and is no longer than what could be written; what broke the ring stays
/// broken with the same cause; a drain brings every token that is out, once; then the ring works again.
func runDriverRing(_ input: inout InputReader) {
  let flags = input.byte()
  let areas = RingAreas(size: 1 << input.choice(9), edge: flags & 1 == 0 ? .end : .start)
  var configuration = SplitDriverRing.Configuration(
    size: areas.size, descriptors: areas.descriptors, avail: areas.avail, used: areas.used)
  configuration.eventIndex = flags & 2 != 0
  configuration.inOrder = flags & 4 != 0
  configuration.startIndex = input.number()
  let capacity = 2 + Int(flags >> 4)
  let tables = FencedMemory(16 * capacity * areas.size, edge: .end)
  if flags & 8 != 0 {
    configuration.indirect = IndirectTables(host: tables.start, address: 0x10_0000, capacity: capacity)
  }
  var ring: SplitDriverRing
  do throws(RingError) { ring = try configuration.activate() } catch {
    violated("a right configuration is taken: \(error)")
  }
  var script = DriverRingScript(areas)
  while !input.isAtEnd { script.step(&ring, &input) }
  script.drain(&ring, inOrder: false)
}

private struct DriverRingScript {
  private let areas: RingAreas
  /// What may be written to each chain that is out.
  private var out: [UInt64: UInt64] = [:]
  private var nextToken: UInt64 = 1
  private var failure: RingError?
  /// How far an honest device has come.
  private var device: UInt16
  private var output: UnsafeMutablePointer<UsedBuffer> { room.start.assumingMemoryBound(to: UsedBuffer.self) }
  private let room: FencedMemory

  init(_ areas: RingAreas) {
    self.areas = areas
    device = areas.usedIndex
    room = FencedMemory(MemoryLayout<UsedBuffer>.stride * areas.size)
  }

  mutating func step(_ ring: inout SplitDriverRing, _ input: inout InputReader) {
    switch input.choice(20) {
    case 0, 1: addOne(&ring, &input)
    case 2: addBurst(&ring, &input)
    case 3: addChain(&ring, &input)
    case 4, 5: ring.publish()
    case 6: _ = ring.needsKick()
    case 7, 8: completeHonestly(Int(input.byte() & 7) + 1)
    case 9: areas.setUsed(input.number(), id: UInt32(input.number(UInt16.self)), length: input.number())
    case 10: areas.setUsed(device, id: input.number(), length: UInt32(input.byte()))
    case 11: areas.usedIndex = areas.usedIndex &+ UInt16(input.byte() & 3)
    case 12: areas.usedIndex = input.number()
    case 13: areas.scribble(at: input.number(), input.byte())
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

  private mutating func addOne(_ ring: inout SplitDriverRing, _ input: inout InputReader) {
    let isWritable = input.byte() & 1 != 0
    let length = UInt32(input.byte()) << UInt32(input.byte() % 25)
    if ring.add(address: input.number(), length: length, writable: isWritable, token: nextToken) {
      noteOut(writable: isWritable ? UInt64(length) : 0)
    }
  }

  private mutating func addBurst(_ ring: inout SplitDriverRing, _ input: inout InputReader) {
    let (wanted, given, isWritable) = (Int(input.byte()), Int(input.byte()), input.byte() & 1 != 0)
    let first = nextToken
    let done = ring.add(count: wanted, writable: isWritable) { position in
      position < given ? RingBuffer(address: UInt64(position), length: 64, token: first + UInt64(position)) : nil
    }
    promise(done <= min(wanted, given, areas.size), "a burst is no longer than asked for")
    for _ in 0..<done { noteOut(writable: isWritable ? 64 : 0) }
  }

  private mutating func addChain(_ ring: inout SplitDriverRing, _ input: inout InputReader) {
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
    promise(out.count < areas.size, "a ring has no more chains than descriptors")
    out[nextToken] = writable
    nextToken += 1
  }

  // MARK: The device

  /// Returns chains that are on the available ring, as long as there are any, with no more written than there is room for.
  private mutating func completeHonestly(_ count: Int) {
    for _ in 0..<count where device != areas.availIndex {
      areas.setUsed(device, id: UInt32(areas.head(device)), length: 0)
      device &+= 1
    }
    areas.usedIndex = device
  }

  // MARK: Taking back

  private mutating func took(_ used: UsedBuffer) {
    promise(failure == nil, "a broken ring gives nothing back")
    guard let writable = out.removeValue(forKey: used.token) else { violated("token \(used.token) is out") }
    promise(UInt64(used.written) <= writable, "\(used.written) bytes fit into \(writable)")
  }

  private mutating func takeOne(_ ring: inout SplitDriverRing) {
    do throws(RingError) {
      if let used = try ring.nextUsed() { took(used) }
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  private mutating func takeMany(_ ring: inout SplitDriverRing, _ limit: Int) {
    let limit = min(limit, areas.size)
    do throws(RingError) {
      let count = try ring.reap(into: output, max: limit)
      promise(count <= limit, "no more are taken than there is room for")
      for index in 0..<count { took(output[index]) }
    } catch {
      promise(ring.failure == error, "what is thrown is what broke the ring")
    }
  }

  private mutating func takeSingles(_ ring: inout SplitDriverRing, max: Int, refusedFrom: Int) {
    var taken: [UsedBuffer] = []
    do throws(RingError) {
      let count = try ring.reapSingles(max: max) { position, token, written in
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

  private func arm(_ ring: inout SplitDriverRing, _ how: UInt8) {
    switch how & 3 {
    case 0: ring.disarmInterrupt()
    case 1: _ = ring.armInterruptDelayed()
    default: _ = ring.armInterrupt(after: Int(how >> 2))
    }
  }

  private func count(_ ring: inout SplitDriverRing) {
    guard let pending = try? ring.pendingUsed() else { return }
    promise(pending <= out.count, "no more is pending than is out")
  }

  private func fail(_ ring: inout SplitDriverRing) {
    ring.fail(RingError(.usedIdOutOfRange, 7))
    promise(!ring.add(address: 0, length: 1, writable: false, token: 0), "a broken ring takes nothing")
  }

  mutating func drain(_ ring: inout SplitDriverRing, inOrder: Bool, startIndex: UInt16 = 0) {
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
    // The whole ring can be used again.
    for id in 0..<areas.size {
      promise(
        ring.add(address: 0, length: 1, writable: false, token: UInt64(id)), "a new ring has room for \(areas.size)")
    }
    promise(!ring.add(address: 0, length: 1, writable: false, token: 0), "a full ring takes nothing")
    ring.drain { _ in }
    try? ring.reset(startIndex: startIndex)
  }
}
