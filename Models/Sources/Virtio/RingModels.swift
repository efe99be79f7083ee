package import Explorer

/// Both sides of a ring of either format, the library's own sources, on two threads: a driver that publishes, rings and sleeps, and
/// a device that serves, interrupts and sleeps.
package enum RingModels {
  package static var split: [Model] {
    [
      model(SplitDriverRing.self, SplitDeviceRing.self, size: 2, chains: 2, eventIndex: true),
      model(SplitDriverRing.self, SplitDeviceRing.self, size: 1, chains: 2, eventIndex: false),
      model(SplitDriverRing.self, SplitDeviceRing.self, size: 2, chains: 3, burst: 2, eventIndex: true),
    ]
  }

  /// A packed ring's words are written by both sides and looked at again and again: what each look may see makes models of all that
  /// happens too large. So a chain has gone round before: the threads go on from there in every way, with notifications that are no
  /// longer unconditional, and a descriptor that has been used. Two chains that are published together show what is between two
  /// descriptors and the notifications. Published one by one, the one's return while the other one is added, they make a model that
  /// does not end in minutes, for each look may come before or after each question for notifications. So there each side is told of
  /// everything and neither asks, and the models are for the code as it stands: what is weaker is found by the small ones.
  package static var packed: [Model] {
    [
      model(PackedDriverRing.self, PackedDeviceRing.self, size: 1, chains: 2, before: 1, eventIndex: true),
      model(PackedDriverRing.self, PackedDeviceRing.self, size: 1, chains: 2, before: 1, eventIndex: false),
      model(PackedDriverRing.self, PackedDeviceRing.self, size: 2, chains: 3, before: 1, burst: 2, eventIndex: true),
      model(
        PackedDriverRing.self, PackedDeviceRing.self, size: 2, chains: 3, before: 1, burst: 2, eventIndex: true,
        inOrder: true),
      model(
        PackedDriverRing.self, PackedDeviceRing.self, size: 2, chains: 3, before: 1, eventIndex: true, asks: false),
      model(
        PackedDriverRing.self, PackedDeviceRing.self, size: 2, chains: 3, before: 1, eventIndex: true, inOrder: true,
        asks: false),
    ]
  }

  /// A driver and a device, each sure that the other will tell it.
  private final class World<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable> {
    let block: UnsafeMutableRawPointer
    let memory: GuestMemory
    var driver: Driver
    var device: Device
    let kick = WakeUp("the kick")
    let call = WakeUp("the call")
    /// Whether a side asks if the other one wants to be told, and says when it does; else each is told of everything.
    let asks: Bool
    /// What lies in the buffers.
    let contents: [PlainWord]
    /// Chains that are used completely: half of each otherwise.
    private let inOrder: Bool

    init(_ explorer: Explorer, size: Int, chains: Int, eventIndex: Bool, inOrder: Bool, asks: Bool) throws {
      self.inOrder = inOrder
      self.asks = asks
      let layout = try RingLayout(Driver.format, size: size)
      block = .allocate(byteCount: layout.totalBytes, alignment: 64)
      block.initializeMemory(as: UInt8.self, repeating: 0, count: layout.totalBytes)
      explorer.share(block, bytes: layout.totalBytes, "the ring of \(size)") { offset, bytes in
        // A packed descriptor's length, id and flags are stored as one and loaded apart. The flags, which are also stored alone, say
        // that the rest is there; the id, which is loaded with them, is one word with them.
        let (place, start) = offset.quotientAndRemainder(dividingBy: 16)
        guard layout.format == .packed, offset < layout.descriptorBytes, start >= 8 else { return [] }
        let (flags, length) = (16 * place + 12..<16 * place + 16, 16 * place + 8..<16 * place + 12)
        return [flags, length].filter { $0.overlaps(offset..<offset + bytes) }
      }
      // The buffers have addresses only: the device reads `contents` instead.
      memory = try GuestMemory([GuestRegion(address: 0x1000, length: 0x1000, host: block)])
      var driver = try DriverRingConfiguration<Driver>(size: size, block: block)
      driver.eventIndex = eventIndex
      driver.inOrder = inOrder
      self.driver = try driver.activate()
      var device = try DeviceRingConfiguration<Device>(size: size, block: block)
      device.eventIndex = eventIndex
      device.inOrder = inOrder
      self.device = try device.activate()
      contents = (0..<chains).map { PlainWord("the buffer of chain \($0)") }
    }

    deinit { block.deallocate() }

    /// Bytes of a chain's buffer, which tell which one it is, and how many of them are written.
    func length(of number: Int) -> UInt32 { UInt32(2 * number + 2) }
    func written(of number: Int) -> UInt32 { inOrder ? length(of: number) : length(of: number) / 2 }

    func add(_ number: Int) -> Bool {
      driver.add(
        address: 0x1000 + UInt64(number), length: length(of: number), writable: true, token: UInt64(number))
    }
  }

  private static func model<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, size: Int, chains: Int, before: Int = 0, burst: Int = 1,
    eventIndex: Bool, inOrder: Bool = false, asks: Bool = true
  ) -> Model {
    let name =
      "a \(Driver.format) ring of \(size), \(chains) chains\(before > 0 ? ", the first before" : "")\(burst > 1 ? ", \(burst) at once" : ""), "
      + (eventIndex ? "event indices" : "flags") + (inOrder ? ", in order" : "")
      + (asks ? "" : ", told of everything")
    return Model(name, findsWeakenings: asks) { explorer in
      guard
        let world = try? World<Driver, Device>(
          explorer, size: size, chains: chains, eventIndex: eventIndex, inOrder: inOrder, asks: asks)
      else {
        preconditionFailure("a ring that cannot be")
      }
      var served: [Int] = []
      var returned: [UInt64] = []
      for number in 0..<before { goRound(world, explorer, number) }
      explorer.thread("driver") {
        drive(world, explorer, before..<chains, burst: burst) { returned.append($0) }
      }
      explorer.thread("device") { serve(world, explorer, before..<chains) { served.append($0) } }
      return {
        explorer.require(
          returned.count == chains - before,
          "the driver sleeps: of \(chains - before) chains the device has served \(served.count), and \(returned) are back"
        )
        explorer.require(Set(returned).count == returned.count, "a chain came back twice: \(returned)")
      }
    }
  }

  /// One chain there and back while both sides are awake, before the threads start.
  private static func goRound<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _ world: World<Driver, Device>, _ explorer: Explorer, _ number: Int
  ) {
    guard world.add(number) else { return explorer.report("chain \(number) has no room") }
    world.driver.publish()
    _ = world.driver.needsKick()
    world.device.refresh()
    guard let chain = world.device.take(in: world.memory) else {
      return explorer.report("the device does not see chain \(number)")
    }
    world.device.pushUsed(chain, written: world.written(of: number))
    world.device.publishUsed()
    _ = world.device.needsCall()
    let count = world.driver.refresh() ? world.driver.takeSingles(max: 1) { _, _, _ in true } : 0
    explorer.require(count == 1, "chain \(number) does not come back")
    // Who works has said that it need not be told.
    world.driver.disarmInterrupt()
    world.device.disarmKick()
  }

  /// As `QueueTurn` and `VirtioQueuePair` do it: take back, submit, publish, ring, and sleep when nothing is left to do.
  private static func drive<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _ world: World<Driver, Device>, _ explorer: Explorer, _ chains: Range<Int>, burst: Int, _ note: (UInt64) -> Void
  ) {
    var sent = chains.lowerBound
    var back = chains.lowerBound
    while back < chains.upperBound, !explorer.isOver {
      do throws(RingError) {
        guard world.driver.refresh() else {
          return explorer.report("the driver finds \(world.driver.failure as Any)")
        }
        back += world.driver.takeSingles(max: chains.count) { _, token, written in
          let number = Int(token)
          explorer.require(written == world.written(of: number), "chain \(number) comes back with \(written) bytes")
          explorer.require(
            world.contents[number].value == UInt64(100 + number), "chain \(number) is not what the device wrote")
          note(token)
          return true
        }
        // What is not of that kind, which no honest device leaves.
        if world.driver.hasOthers, let used = try world.driver.nextUsed() {
          explorer.report("chain \(used.token) is left over")
        }
      } catch {
        return explorer.report("the driver finds \(error)")
      }
      var added = 0
      while sent < chains.upperBound, added < burst {
        world.contents[sent].value = UInt64(sent)
        guard world.add(sent) else { break }
        sent += 1
        added += 1
      }
      if added > 0 {
        world.driver.publish()
        if !world.asks || world.driver.needsKick() { world.kick.signal() }
        continue
      }
      guard back < chains.upperBound, !world.asks || !world.driver.armInterrupt() else { continue }
      guard world.call.wait() else { return }
      if world.asks { world.driver.disarmInterrupt() }
    }
  }

  /// As `EngineCore.turn`: no kicks while there is work; when there is none, they are asked for and the ring is looked at again.
  private static func serve<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _ world: World<Driver, Device>, _ explorer: Explorer, _ chains: Range<Int>, _ note: (Int) -> Void
  ) {
    var served = chains.lowerBound
    var isArmed = false
    while served < chains.upperBound, !explorer.isOver {
      if isArmed {
        world.device.disarmKick()
        isArmed = false
      }
      var moved = 0
      world.device.refresh()
      while let chain = world.device.take(in: world.memory) {
        let token = chain.writableLength / 2 - 1
        guard chains.contains(token), chain.writableLength == Int(world.length(of: token)) else {
          return explorer.report("a buffer of \(chain.writableLength) bytes was never offered")
        }
        explorer.require(world.contents[token].value == UInt64(token), "the buffer of chain \(token) is not filled yet")
        world.contents[token].value = UInt64(100 + token)
        world.device.pushUsed(chain, written: world.written(of: token))
        note(token)
        moved += 1
      }
      if let failure = world.device.failure { return explorer.report("the device finds \(failure)") }
      served += moved
      guard moved > 0 else {
        isArmed = world.asks
        if !isArmed || !world.device.armKick(), !world.kick.wait() { return }
        continue
      }
      world.device.publishUsed()
      if !world.asks || world.device.needsCall() { world.call.signal() }
    }
  }
}
