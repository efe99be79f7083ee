package import Explorer

/// Both sides of a ring of either format, the library's own sources, on two threads: a driver that publishes, rings and sleeps, and
/// a device that serves, interrupts and sleeps.
package enum RingModels {
  /// All of them.
  package static var all: [Model] {
    let split: [Model] = [
      model(SplitDriverRing.self, SplitDeviceRing.self, size: 2, chains: 2, eventIndex: true),
      model(SplitDriverRing.self, SplitDeviceRing.self, size: 1, chains: 2, eventIndex: false),
      model(SplitDriverRing.self, SplitDeviceRing.self, size: 2, chains: 3, burst: 2, eventIndex: true),
    ]
    // A packed ring is looked at more often, and what each look may see makes models of two descriptors too large.
    let packed: [Model] = [
      model(PackedDriverRing.self, PackedDeviceRing.self, size: 1, chains: 2, eventIndex: true),
      model(PackedDriverRing.self, PackedDeviceRing.self, size: 1, chains: 2, eventIndex: false),
    ]
    return split + packed
  }

  /// A driver and a device, each sure that the other will tell it.
  private final class World<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable> {
    let block: UnsafeMutableRawPointer
    let memory: GuestMemory
    var driver: Driver
    var device: Device
    let kick = WakeUp("the kick")
    let call = WakeUp("the call")
    /// What lies in the buffers.
    let contents: [PlainWord]

    init(_ explorer: Explorer, size: Int, chains: Int, eventIndex: Bool) throws {
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
      self.driver = try driver.activate()
      var device = try DeviceRingConfiguration<Device>(size: size, block: block)
      device.eventIndex = eventIndex
      self.device = try device.activate()
      contents = (0..<chains).map { PlainWord("the buffer of chain \($0)") }
    }

    deinit { block.deallocate() }
  }

  private static func model<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, size: Int, chains: Int, burst: Int = 1, eventIndex: Bool
  ) -> Model {
    let name =
      "a \(Driver.format) ring of \(size), \(chains) chains\(burst > 1 ? ", \(burst) at once" : ""), "
      + (eventIndex ? "event indices" : "flags")
    return Model(name) { explorer in
      guard let world = try? World<Driver, Device>(explorer, size: size, chains: chains, eventIndex: eventIndex) else {
        preconditionFailure("a ring that cannot be")
      }
      var served: [UInt32] = []
      var returned: [UInt64] = []
      explorer.thread("driver") {
        drive(world, explorer, chains: chains, burst: burst) { returned.append($0) }
      }
      explorer.thread("device") { serve(world, explorer, chains: chains) { served.append($0) } }
      return {
        explorer.require(
          returned.count == chains,
          "the driver sleeps: of \(chains) chains the device has served \(served.count), and \(returned) are back")
        explorer.require(Set(returned).count == returned.count, "a chain came back twice: \(returned)")
      }
    }
  }

  /// As `QueueTurn` and `VirtioQueuePair` do it: take back, submit, publish, ring, and sleep when nothing is left to do.
  private static func drive<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _ world: World<Driver, Device>, _ explorer: Explorer, chains: Int, burst: Int, _ note: (UInt64) -> Void
  ) {
    var sent = 0
    var back = 0
    while back < chains, !explorer.isOver {
      do throws(RingError) {
        guard world.driver.refresh() else {
          return explorer.report("the driver finds \(world.driver.failure as Any)")
        }
        back += world.driver.takeSingles(max: chains) { _, token, written in
          let number = Int(token)
          explorer.require(written == UInt32(number + 1), "chain \(number) comes back with \(written) bytes")
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
      while sent < chains, added < burst {
        world.contents[sent].value = UInt64(sent)
        guard
          world.driver.add(
            address: 0x1000 + UInt64(sent), length: UInt32(sent + 1), writable: true, token: UInt64(sent))
        else { break }
        sent += 1
        added += 1
      }
      if added > 0 {
        world.driver.publish()
        if world.driver.needsKick() { world.kick.signal() }
        continue
      }
      if back < chains, !world.driver.armInterrupt() {
        guard world.call.wait() else { return }
        world.driver.disarmInterrupt()
      }
    }
  }

  /// As `EngineCore.turn`: no kicks while there is work; when there is none, they are asked for and the ring is looked at again.
  private static func serve<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _ world: World<Driver, Device>, _ explorer: Explorer, chains: Int, _ note: (UInt32) -> Void
  ) {
    var served = 0
    var isArmed = false
    while served < chains, !explorer.isOver {
      if isArmed {
        world.device.disarmKick()
        isArmed = false
      }
      var moved = 0
      world.device.refresh()
      while let chain = world.device.take(in: world.memory) {
        // The length tells which one it is.
        let length = UInt32(chain.writableLength)
        guard length >= 1, length <= chains else {
          return explorer.report("a buffer of \(length) bytes was never offered")
        }
        let token = Int(length) - 1
        explorer.require(world.contents[token].value == UInt64(token), "the buffer of chain \(token) is not filled yet")
        world.contents[token].value = UInt64(100 + token)
        world.device.pushUsed(chain, written: length)
        note(length)
        moved += 1
      }
      if let failure = world.device.failure { return explorer.report("the device finds \(failure)") }
      served += moved
      guard moved > 0 else {
        isArmed = true
        if !world.device.armKick(), !world.kick.wait() { return }
        continue
      }
      world.device.publishUsed()
      if world.device.needsCall() { world.call.signal() }
    }
  }
}
