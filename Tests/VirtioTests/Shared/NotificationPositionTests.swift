import RingThreads
import Testing
import Virtio

/// With EVENT_IDX a side is told of a position, whatever the other one has published, put aside or in hand when it asks.
@Suite struct NotificationPositionTests {
  static let buffer = RingBuffer(address: RingPlace.bufferBase, length: 9)

  /// A ring of which nothing is out, at any place of it, whose unconditional notifications are over.
  private struct Sides<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>: ~Copyable {
    private let place: RingPlace
    let memory: GuestMemory
    var driver: Driver
    var device: Device

    static func make(_ format: RingFormat, round: Int) throws -> Sides {
      let place = try RingPlace(RingSetting(format: format, size: 4))
      let memory = try place.memory()
      let driver = try place.driver(Driver.self)
      let device = try place.device(Device.self)
      var sides = Sides(place, memory, driver, device)
      try sides.goRound(round)
      return sides
    }

    private init(
      _ place: RingPlace, _ memory: consuming GuestMemory, _ driver: consuming Driver, _ device: consuming Device
    ) {
      self.place = place
      self.memory = memory
      self.driver = driver
      self.device = device
    }

    private mutating func goRound(_ round: Int) throws {
      for _ in 0...round {
        offer(1)
        _ = driver.needsKick()
        try giveBack(1)
        _ = device.needsCall()
        _ = try driver.reap(max: 4)
      }
    }

    /// Adds so many chains, and publishes them.
    mutating func offer(_ count: Int) {
      _ = driver.add(count: count, writable: false) { _ in NotificationPositionTests.buffer }
      driver.publish()
    }

    /// The device uses so many, and publishes that.
    mutating func giveBack(_ count: Int) throws {
      _ = try device.serve(max: count, in: memory) { _ in 0 }
      device.publishUsed()
    }
  }

  private static func each(
    _ body: (RingFormat, Int) throws -> (driver: Bool, device: Bool)
  ) rethrows {
    for format in RingFormat.allCases {
      for round in 0..<9 {
        let (driver, device) = try body(format, round)
        #expect(driver, "\(format), \(round): the doorbell is lost")
        #expect(device, "\(format), \(round): the interrupt is lost")
      }
    }
  }

  @Test func `publications between two questions count together`() throws {
    try Self.each { format, round in
      switch format {
      case .split: try between(SplitDriverRing.self, SplitDeviceRing.self, format, round)
      case .packed: try between(PackedDriverRing.self, PackedDeviceRing.self, format, round)
      }
    }
  }

  private func between<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ format: RingFormat, _ round: Int
  ) throws -> (driver: Bool, device: Bool) {
    var sides = try Sides<Driver, Device>.make(format, round: round)
    let isBusy = sides.device.armKick()
    sides.offer(1)
    sides.offer(1)
    let rings = sides.driver.needsKick()
    let isUsed = sides.driver.armInterrupt()
    try sides.giveBack(1)
    try sides.giveBack(1)
    #expect(!isBusy && !isUsed)
    return (rings, sides.device.needsCall())
  }

  @Test func `what is not published yet does not count`() throws {
    try Self.each { format, round in
      switch format {
      case .split: try hidden(SplitDriverRing.self, SplitDeviceRing.self, format, round)
      case .packed: try hidden(PackedDriverRing.self, PackedDeviceRing.self, format, round)
      }
    }
  }

  private func hidden<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ format: RingFormat, _ round: Int
  ) throws -> (driver: Bool, device: Bool) {
    var sides = try Sides<Driver, Device>.make(format, round: round)
    _ = sides.device.armKick()
    sides.offer(1)
    _ = sides.driver.add(count: 2, writable: false) { _ in Self.buffer }
    let rings = sides.driver.needsKick()
    sides.driver.publish()
    _ = sides.driver.armInterrupt()
    try sides.giveBack(1)
    _ = try sides.device.serve(max: 2, in: sides.memory) { _ in 0 }
    return (rings, sides.device.needsCall())
  }

  @Test func `a kick is asked for behind the chains in hand, an interrupt for the oldest that is out`() throws {
    try Self.each { format, round in
      switch format {
      case .split: try inHand(SplitDriverRing.self, SplitDeviceRing.self, format, round)
      case .packed: try inHand(PackedDriverRing.self, PackedDeviceRing.self, format, round)
      }
    }
  }

  private func inHand<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ format: RingFormat, _ round: Int
  ) throws -> (driver: Bool, device: Bool) {
    var sides = try Sides<Driver, Device>.make(format, round: round)
    sides.offer(2)
    _ = sides.driver.needsKick()
    let chains = try sides.device.take(max: 2, in: sides.memory)
    let isBusy = sides.device.armKick()
    #expect(chains.count == 2 && !isBusy)
    sides.offer(1)
    let rings = sides.driver.needsKick()
    let isUsed = sides.driver.armInterrupt()
    #expect(!isUsed)
    if let first = chains.first { sides.device.pushUsed(first, written: 0) }
    sides.device.publishUsed()
    return (rings, sides.device.needsCall())
  }
}
