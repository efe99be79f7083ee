import NetdevTesting
import RingThreads
import Testing
import Virtio

/// Both sides of a ring against each other, in both formats, by the same code.
@Suite struct RingTrafficTests {
  static let sizes = [1, 2, 3, 4, 5, 8, 257, 1024]

  @Test("Every token comes back once with its length, whatever the chains", arguments: RingSetting.all(sizes))
  func traffic(setting: RingSetting) throws {
    var starts: [UInt16?] = [nil]
    // Through the wrap of the indices, and with either wrap counter.
    starts += setting.format == .split ? [65530] : [UInt16(setting.size - 1), UInt16(setting.size / 2) | 0x8000]
    for start in starts {
      for indirect in [false, true] {
        var setting = setting
        setting.startIndex = start
        switch setting.format {
        case .split: try Self.run(SplitDriverRing.self, SplitDeviceRing.self, setting, indirect: indirect)
        case .packed: try Self.run(PackedDriverRing.self, PackedDeviceRing.self, setting, indirect: indirect)
        }
      }
    }
  }

  /// A chain that is out: what went in, and what has to come back.
  struct Out: Equatable {
    var token: UInt64
    var readable: Int
    var writable: Int
    var written: UInt32 = 0
  }

  private static func run<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting, indirect: Bool
  ) throws {
    let place = try RingPlace(setting)
    let memory = try place.memory()
    var driver = try place.driver(Driver.self, indirect: indirect)
    var device = try place.device(Device.self)
    var random = SeededRandom(seed: UInt64(setting.size) << 8 | (indirect ? 1 : 0) | (setting.inOrder ? 2 : 0))
    var out: [Out] = []
    var returned: [Out] = []
    var sent: UInt64 = 0
    var received = 0
    /// Empty buffers of bursts: nobody asks for their order.
    var unordered: Set<UInt64> = []
    let goal = setting.size < 100 ? 4000 : 8 * setting.size
    while received < goal {
      // The driver adds: a burst of one kind, or a chain.
      let kind = random.next() % 4
      if kind < 2 {
        let wanted = Int(random.next() % UInt64(setting.size + 1))
        let added = driver.add(count: wanted, writable: kind == 0) { index in
          RingBuffer(address: RingPlace.bufferBase, length: 64, token: sent + UInt64(index))
        }
        #expect(added <= wanted)
        for _ in 0..<added {
          if kind == 0 { unordered.insert(sent) }
          out.append(Out(token: sent, readable: kind == 0 ? 0 : 64, writable: kind == 0 ? 64 : 0))
          sent += 1
        }
      } else if kind == 2 {
        let parts = (0..<Int(random.next() % 4) + 1).map {
          RingBuffer(address: RingPlace.bufferBase + UInt64(64 * $0), length: UInt32($0 + 1))
        }
        let cut = Int(random.next() % UInt64(parts.count + 1))
        if parts.count <= setting.size,
          try driver.add(
            readable: parts.span.extracting(..<cut), writable: parts.span.extracting(cut...), token: sent)
        {
          let lengths = parts.map { Int($0.length) }
          out.append(
            Out(token: sent, readable: lengths[..<cut].reduce(0, +), writable: lengths[cut...].reduce(0, +)))
          sent += 1
        }
      }
      if random.next() % 4 != 0 { driver.publish() }
      #expect(driver.inFlight + driver.unpublished == out.count + returned.count)

      // The device takes some, puts some back, and returns what it has: in order, or in any.
      var chains: [(chain: DescriptorChain, out: Out)] = []
      for chain in try device.take(max: Int(random.next() % UInt64(setting.size + 2)), in: memory) {
        guard chains.count < out.count else {
          Issue.record("the device found a chain that was not added")
          return
        }
        let expected = out[chains.count]
        #expect(chain.readableLength == expected.readable && chain.writableLength == expected.writable)
        chains.append((chain, expected))
      }
      let kept = Int(random.next() % UInt64(chains.count + 1))
      if random.next() % 3 == 0 {
        while chains.count > kept, let last = chains.popLast() { try device.putBack(last.chain) }
      }
      out.removeFirst(chains.count)
      if !setting.inOrder { chains.shuffle(using: &random) }
      for (chain, expected) in chains {
        var expected = expected
        expected.written = UInt32(random.next() % UInt64(expected.writable + 1))
        device.pushUsed(chain, written: expected.written)
        returned.append(expected)
      }
      #expect(device.outstanding == 0)
      device.publishUsed()

      // The driver takes back, by the burst or one by one.
      let limit = Int(random.next() % UInt64(setting.size + 1))
      var taken: [UsedBuffer] = []
      if random.next() % 2 == 0 {
        taken = try driver.reap(max: limit)
      } else {
        while taken.count < limit, let used = try driver.nextUsed() { taken.append(used) }
      }
      guard taken == returned.prefix(taken.count).map({ UsedBuffer(token: $0.token, written: $0.written) }) else {
        Issue.record("took back \(taken), expected \(returned.prefix(taken.count))")
        return
      }
      #expect(taken.count == min(limit, returned.count))
      returned.removeFirst(taken.count)
      received += taken.count
      #expect(driver.hasUsed == !returned.isEmpty)
    }
    #expect(driver.failure == nil && device.failure == nil && device.malformedChains == 0)

    // What is left comes out in the order in which it went in.
    var drained: [UInt64] = []
    driver.drainInOrder { drained.append($0) }
    #expect(Set(drained) == Set((returned + out).map(\.token)) && drained.count == returned.count + out.count)
    let ordered = drained.filter { !unordered.contains($0) }
    #expect(ordered == ordered.sorted())
    try driver.reset()
    #expect(driver.freeCount == setting.size && driver.failure == nil)
  }

  @Test(
    "Whether the device has anything left is known also with a new lap that is not published",
    arguments: RingSetting.all([1, 2, 3, 8, 257]))
  func usedUp(setting: RingSetting) throws {
    switch setting.format {
    case .split: try Self.runUsedUp(SplitDriverRing.self, SplitDeviceRing.self, setting)
    case .packed: try Self.runUsedUp(PackedDriverRing.self, PackedDeviceRing.self, setting)
    }
  }

  private static func runUsedUp<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting
  ) throws {
    let place = try RingPlace(setting)
    let memory = try place.memory()
    var driver = try place.driver(Driver.self)
    var device = try place.device(Device.self)
    for lap in 0..<4 {
      let added = driver.add(count: setting.size, writable: true) {
        RingBuffer(address: RingPlace.bufferBase, length: 64, token: UInt64($0))
      }
      let isUsedUpBefore = driver.isUsedUp
      #expect(added == setting.size && isUsedUpBefore == (lap > 0))
      driver.publish()
      let isUsedUpThen = driver.isUsedUp
      #expect(!isUsedUpThen)
      let chains = try device.take(max: setting.size, in: memory)
      for chain in chains { device.pushUsed(chain, written: 1) }
      device.publishUsed()
      let isUsedUpAfter = driver.isUsedUp
      #expect(chains.count == setting.size && isUsedUpAfter)
      let back = try driver.reap(max: setting.size)
      #expect(back.count == setting.size)
    }
  }

  @Test("A million chains of two in a packed ring of three: each lap changes the wrap counter inside a chain")
  func chained() throws {
    for inOrder in [false, true] {
      let place = try RingPlace(RingSetting(format: .packed, size: 3, inOrder: inOrder))
      let memory = try place.memory()
      var driver = try place.driver(PackedDriverRing.self)
      var device = try place.device(PackedDeviceRing.self)
      let parts = [RingBuffer(address: RingPlace.bufferBase, length: 12)]
      let rest = [RingBuffer(address: RingPlace.bufferBase + 64, length: 50)]
      for token: UInt64 in 0..<500_000 {
        guard try driver.add(readable: parts.span, writable: rest.span, token: token) else {
          Issue.record("no room at \(token)")
          return
        }
        driver.publish()
        guard try device.begin(), let chain = try device.next(in: memory) else {
          Issue.record("no chain at \(token)")
          return
        }
        device.pushUsed(chain, written: UInt32(token % 51))
        device.publishUsed()
        guard try driver.nextUsed() == UsedBuffer(token: token, written: UInt32(token % 51)) else {
          Issue.record("lost at \(token)")
          return
        }
      }
      let (kick, call) = (driver.needsKick(), device.needsCall())
      #expect(kick && call && driver.freeCount == 3)
    }
  }

  @Test(
    "A relay carries what singles come, and leaves the rest as it was", arguments: RingSetting.all([1, 3, 4, 8, 257]))
  func relay(setting: RingSetting) throws {
    switch setting.format {
    case .split: try Self.runRelay(SplitDriverRing.self, SplitDeviceRing.self, setting)
    case .packed: try Self.runRelay(PackedDriverRing.self, PackedDeviceRing.self, setting)
    }
  }

  private static func runRelay<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting
  ) throws {
    let (there, back) = (try RingPlace(setting), try RingPlace(setting))
    // One memory for both: the buffers of the first.
    let memory = try there.memory()
    var sender = try there.driver(Driver.self)
    var receiver = try back.driver(Driver.self)
    var source = try there.device(Device.self)
    var target = try back.device(Device.self)
    var random = SeededRandom(seed: UInt64(setting.size))
    var sent: UInt64 = 0
    var posted: UInt64 = 0
    var lengths: [UInt32] = []
    var released: UInt64 = 0
    var received: UInt64 = 0
    while received < 20_000 {
      if random.next() % 8 == 0, setting.size > 1 {
        let parts = (1...2).map { RingBuffer(address: RingPlace.bufferBase, length: UInt32($0)) }
        if try sender.add(readable: parts.span, writable: [RingBuffer]().span, token: sent) {
          sent += 1
          lengths.append(3)
        }
      } else {
        let added = sender.add(count: Int(random.next() % 9), writable: false) { index in
          lengths.append(UInt32(index) + 1)
          return RingBuffer(address: RingPlace.bufferBase, length: UInt32(index) + 1, token: sent + UInt64(index))
        }
        sent += UInt64(added)
      }
      posted += UInt64(
        receiver.add(count: Int(random.next() % 9), writable: true) { index in
          RingBuffer(address: RingPlace.bufferBase + 4096, length: 100, token: posted + UInt64(index))
        })
      sender.publish()
      receiver.publish()
      let (hasSource, hasTarget) = (try source.begin(), try target.begin())
      var carried = 0
      let limit = Int(random.next() % 12)
      if hasSource, hasTarget {
        carried = source.relay(to: &target, max: limit, in: memory) { from, to in
          // Now and then one is refused, and taken step by step.
          from.length == 5 || to.length < from.length ? nil : UInt32(from.length)
        }
      }
      #expect(carried <= limit)
      // What the relay did not take.
      if let chain = try source.next(in: memory) {
        if let room = try target.next(in: memory) {
          source.pushUsed(chain, written: 0)
          target.pushUsed(room, written: UInt32(chain.readableLength))
        } else {
          try source.putBack(chain)
        }
      }
      source.publishUsed()
      target.publishUsed()
      for used in try sender.reap(max: 100) {
        #expect(used == UsedBuffer(token: released, written: 0))
        released += 1
      }
      for used in try receiver.reap(max: 100) {
        #expect(used == UsedBuffer(token: received, written: lengths.removeFirst()))
        received += 1
      }
      guard received <= released, source.failure == nil, target.failure == nil else {
        Issue.record("\(released) released, \(received) received")
        return
      }
    }
  }

  @Test("Nobody sleeps while there is work, whatever the order of steps", arguments: RingSetting.all([1, 2, 3, 8]))
  func wakeUps(setting: RingSetting) throws {
    switch setting.format {
    case .split: try Self.runWakeUps(SplitDriverRing.self, SplitDeviceRing.self, setting)
    case .packed: try Self.runWakeUps(PackedDriverRing.self, PackedDeviceRing.self, setting)
    }
  }

  private static func runWakeUps<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting
  ) throws {
    let place = try RingPlace(setting)
    let memory = try place.memory()
    var driver = try place.driver(Driver.self, indirect: true)
    var device = try place.device(Device.self)
    var random = SeededRandom(seed: UInt64(setting.size) + 77)
    var (driverSleeps, deviceSleeps) = (false, false)
    var (kicks, calls, steps) = (0, 0, 0)
    var sent: UInt64 = 0
    var received: UInt64 = 0
    while received < 20_000 {
      steps += 1
      if driverSleeps, deviceSleeps {
        Issue.record("both sleep after \(received) chains, \(driver.inFlight) in flight")
        return
      }
      if random.next() % 2 == 0, !driverSleeps {
        if random.next() % 3 == 0 { driver.disarmInterrupt() }
        while let used = try driver.nextUsed() {
          #expect(used.token == received)
          received += 1
        }
        let parts = (0..<Int(random.next() % 3) + 1).map { _ in RingBuffer(address: RingPlace.bufferBase, length: 8) }
        for _ in 0..<random.next() % 4 where parts.count <= setting.size {
          if try driver.add(readable: parts.span, writable: [RingBuffer]().span, token: sent) { sent += 1 }
        }
        driver.publish()
        if driver.needsKick() {
          kicks += 1
          deviceSleeps = false
        }
        if driver.inFlight > 0, random.next() % 2 == 0 {
          driverSleeps = random.next() % 2 == 0 ? !driver.armInterrupt() : !driver.armInterruptDelayed()
        }
      } else if !deviceSleeps {
        if random.next() % 3 == 0 { device.disarmKick() }
        let served = try device.serve(max: Int(random.next() % 3), in: memory) { _ in 0 }
        device.publishUsed()
        if device.needsCall() {
          calls += 1
          driverSleeps = false
        }
        if served == 0, random.next() % 2 == 0 { deviceSleeps = !device.armKick() }
      }
    }
    // Suppressed at all: neither side rings for everything.
    #expect(kicks < steps && calls < steps && kicks > 0 && calls > 0)
  }
}
