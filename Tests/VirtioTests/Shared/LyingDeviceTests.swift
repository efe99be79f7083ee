import RingThreads
import Testing
import Virtio

/// Every short sequence of steps of a driver and of a device that may claim anything, in both formats and in small rings.
///
/// Promises: what comes back was out and comes back once, with no more written than there is room for; an honest device never
/// breaks a ring; what broke it stays; where a look finds something, a burst takes it or breaks the ring; a drain brings everything
/// that is out, once.
@Suite struct LyingDeviceTests {
  enum Step: Equatable {
    case addOne
    case addChain
    case publish
    case takeBurst
    case takeOne
    /// The device claims to have used this id.
    case use(id: UInt32, length: UInt32)
    /// It uses the oldest chain that it has, truly.
    case useOldest
    /// The same with all that it has: one batch with IN_ORDER.
    case useAll
  }

  private static func steps(_ size: Int) -> [Step] {
    var steps: [Step] = [.addOne, .addChain, .publish, .takeBurst, .takeOne, .useOldest, .useAll]
    for id in [0, UInt32(size - 1), UInt32(size)] {
      for length: UInt32 in [0, 11] { steps.append(.use(id: id, length: length)) }
    }
    return steps
  }

  @Test(arguments: RingSetting.all([1, 2, 3]).filter { $0.eventIndex })
  func `no sequence breaks a promise`(setting: RingSetting) throws {
    let starts: [[Step]] = [
      [], [.addOne, .publish], [.addChain, .publish, .useOldest], [.addOne, .addChain, .publish, .useAll],
      [.addOne, .publish, .useOldest, .takeBurst, .addOne, .addOne, .publish],
    ]
    let steps = Self.steps(setting.size)
    let place = try RingPlace(setting)
    for start in starts {
      for number in 0..<(steps.count * steps.count * steps.count) {
        let sequence =
          start + [
            steps[number % steps.count], steps[number / steps.count % steps.count],
            steps[number / steps.count / steps.count],
          ]
        let broken =
          switch setting.format {
          case .split: try Self.run(SplitDriverRing.self, place, sequence)
          case .packed: try Self.run(PackedDriverRing.self, place, sequence)
          }
        if let broken {
          Issue.record("\(broken) after \(sequence)")
          return
        }
      }
    }
  }

  /// What promise was broken.
  private static func run<Ring: DriverRing & ~Copyable>(
    _: Ring.Type, _ place: RingPlace, _ sequence: [Step]
  ) throws -> String? {
    var ring = try place.driver(Ring.self)
    var device = RawDevice(place)
    var held: [RawDevice.Chain] = []
    var out: [UInt64: UInt32] = [:]
    var token: UInt64 = 0
    var isHonest = true
    var problem: String?
    func took(_ used: UsedBuffer) {
      guard let writable = out.removeValue(forKey: used.token) else {
        problem = "token \(used.token) was not out"
        return
      }
      if used.written > writable { problem = "\(used.written) bytes in room for \(writable)" }
    }
    // What follows the sequence shows what it has done.
    for step in sequence + [.takeBurst, .takeOne, .addOne] {
      let failure = ring.failure
      switch step {
      case .addOne:
        if ring.add(address: 0x1000, length: 10, writable: true, token: token) {
          out[token] = 10
          token += 1
        }
      case .addChain:
        let parts = [RingBuffer(address: 0x1000, length: 5), RingBuffer(address: 0x1000, length: 10)]
        if place.setting.size > 1,
          try ring.add(readable: parts.span.extracting(..<1), writable: parts.span.extracting(1...), token: token)
        {
          out[token] = 10
          token += 1
        }
      case .publish: ring.publish()
      case .takeBurst:
        do throws(RingError) {
          let burst = try ring.reap(max: 10)
          for used in burst { took(used) }
          // A loop that waits for it would turn for ever.
          if burst.isEmpty, ring.hasUsed || ring.armInterrupt() { return "a look found something, and a burst nothing" }
        } catch {
          if isHonest { return "an honest device broke the ring: \(error)" }
        }
      case .takeOne:
        do throws(RingError) {
          if let used = try ring.nextUsed() { took(used) }
        } catch {
          if isHonest { return "an honest device broke the ring: \(error)" }
          if ring.failure != error { return "\(error) was thrown, \(ring.failure as Any) broke the ring" }
        }
      case .use(let id, let length):
        isHonest = false
        device.use(id: id, length: length)
      case .useOldest:
        while let chain = device.take() { held.append(chain) }
        guard !held.isEmpty else { break }
        let chain = held.removeFirst()
        device.use(id: chain.id, length: 1, places: chain.places)
      case .useAll:
        while let chain = device.take() { held.append(chain) }
        if place.setting.inOrder, let last = held.last {
          device.use(
            id: last.id, length: last.writable, places: held.reduce(0) { $0 + $1.places }, chains: held.count)
          held = []
        } else {
          // In no order.
          for chain in held.reversed() { device.use(id: chain.id, length: chain.writable, places: chain.places) }
          held = []
        }
      }
      if let problem { return problem }
      if let failure, ring.failure != failure { return "\(failure) became \(ring.failure as Any)" }
      if ring.failure != nil, ring.freeCount != 0 { return "a broken ring has room" }
    }
    if isHonest, ring.failure != nil { return "an honest device broke the ring" }
    var drained: [UInt64] = []
    if token % 2 == 0 { ring.drain { drained.append($0) } } else { ring.drainInOrder { drained.append($0) } }
    if Set(drained) != Set(out.keys) || drained.count != out.count { return "\(drained) were drained, \(out) were out" }
    return nil
  }

  @Test(
    "Driver rule 16: lies are found, by their rule, and thrown again and again", arguments: RingFormat.allCases,
    [false, true])
  func lies(format: RingFormat, inOrder: Bool) throws {
    let setting = RingSetting(format: format, size: 8, inOrder: inOrder)
    let cases: [(id: UInt32, length: UInt32, RingError)] = [
      (8, 1, RingError(.usedIdOutOfRange, 8)), (0xffff, 1, RingError(.usedIdOutOfRange, 0xffff)),
      (5, 1, RingError(.usedIdNotOutstanding, 5)), (0, 101, RingError(.usedLengthTooLong, 101)),
      (0, .max, RingError(.usedLengthTooLong, UInt64(UInt32.max))),
    ]
    for (id, length, expected) in cases {
      switch format {
      case .split: try expectBroken(SplitDriverRing.self, setting, expected) { $0.use(id: id, length: length) }
      case .packed: try expectBroken(PackedDriverRing.self, setting, expected) { $0.use(id: id, length: length) }
      }
    }
    // Twice the same: the first counts.
    let twice: (inout RawDevice) -> Void = {
      $0.use(id: 0, length: 1)
      $0.use(id: 0, length: 1)
    }
    let again = RingError(.usedIdNotOutstanding, 0)
    switch format {
    case .split: try expectBroken(SplitDriverRing.self, setting, again, after: 1, twice)
    case .packed: try expectBroken(PackedDriverRing.self, setting, again, after: 1, twice)
    }
  }

  @Test(arguments: RingFormat.allCases, [false, true])
  func `what is used while nothing is out breaks the ring at the next burst`(
    format: RingFormat, inOrder: Bool
  ) throws {
    let setting = RingSetting(format: format, size: 4, inOrder: inOrder)
    switch format {
    case .split: try expectBrokenWhenEmpty(SplitDriverRing.self, setting, RingError(.usedIndexJump, 2))
    case .packed: try expectBrokenWhenEmpty(PackedDriverRing.self, setting, RingError(.usedIdNotOutstanding, 0))
    }
  }

  private func expectBrokenWhenEmpty<Ring: DriverRing & ~Copyable>(
    _: Ring.Type, _ setting: RingSetting, _ expected: RingError
  ) throws {
    let place = try RingPlace(setting)
    var ring = try place.driver(Ring.self)
    var device = RawDevice(place)
    _ = ring.add(address: 0x1000, length: 10, writable: true, token: 5)
    ring.publish()
    let offered = device.take()
    let chain = try #require(offered)
    device.use(id: chain.id, length: 1)
    let back = try ring.reap(max: 4)
    #expect(back == [UsedBuffer(token: 5, written: 1)] && ring.inFlight == 0 && !ring.hasUsed)
    device.use(id: 0, length: 0)
    let (isSeen, isArmed) = (ring.hasUsed, ring.armInterrupt())
    let error = violation { () throws(RingError) in _ = try ring.reap(max: 4) }
    #expect(isSeen && isArmed && error == expected && ring.failure == expected)
  }

  private func expectBroken<Ring: DriverRing & ~Copyable>(
    _: Ring.Type, _ setting: RingSetting, _ expected: RingError, after good: Int = 0,
    _ lie: (inout RawDevice) -> Void
  ) throws {
    for byBurst in [false, true] {
      let place = try RingPlace(setting)
      var ring = try place.driver(Ring.self)
      let added = ring.add(count: 3, writable: true) { RingBuffer(address: 0x1000, length: 100, token: UInt64($0)) }
      ring.publish()
      var device = RawDevice(place)
      lie(&device)
      var tokens: Set<UInt64> = []
      for _ in 0..<good {
        let used = byBurst ? try ring.reap(max: 8).first : try ring.nextUsed()
        tokens.insert(try #require(used).token)
      }
      for _ in 0..<2 {
        let error = violation { () throws(RingError) in
          if byBurst { _ = try ring.reap(max: 8) } else { _ = try ring.nextUsed() }
        }
        #expect(error == expected)
      }
      let looked = violation { () throws(RingError) in try ring.look() }
      let isAdded = ring.add(address: 0, length: 1, writable: true, token: 9)
      let needsKick = ring.needsKick()
      #expect(added == 3 && looked == expected && ring.failure == expected && !isAdded && !needsKick && ring.hasUsed)
      ring.drain { tokens.insert($0) }
      #expect(tokens == [0, 1, 2])
      try ring.reset()
      let works = ring.add(address: 0, length: 1, writable: true, token: 9)
      #expect(works && ring.freeCount == 7)
    }
  }
}
