import RingThreads
import Testing
import Virtio

/// A device that has chains in hand while it returns, puts back or relays others.
@Suite struct ChainsInHandTests {
  @Test(arguments: RingFormat.allCases)
  func `chains are put back in reverse; another one than the last is refused`(format: RingFormat) throws {
    switch format {
    case .split: try putBack(SplitDriverRing.self, SplitDeviceRing.self, format)
    case .packed: try putBack(PackedDriverRing.self, PackedDeviceRing.self, format)
    }
  }

  private func putBack<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ format: RingFormat
  ) throws {
    // Also where the ring comes round, and with chains of several descriptors.
    for before in 0..<8 {
      let place = try RingPlace(RingSetting(format: format, size: 8))
      let memory = try place.memory()
      var driver = try place.driver(Driver.self)
      var device = try place.device(Device.self)
      for _ in 0..<before {
        _ = try Self.offer(1, &driver)
        _ = try device.serve(max: 1, in: memory) { _ in 0 }
        device.publishUsed()
        _ = try driver.reap(max: 1)
      }
      let tokens = try Self.offer(4, &driver)
      let chains = try device.take(max: 4, in: memory)
      try #require(chains.count == 4)
      var refusals: [Bool] = []
      // The second one is returned before the first: neither the first nor the third is the last.
      device.pushUsed(chains[1], written: 0)
      refusals.append(Self.isRefused(chains[0], by: &device))
      refusals.append(Self.isRefused(chains[2], by: &device))
      try device.putBack(chains[3])
      refusals.append(Self.isRefused(chains[3], by: &device))
      try device.putBack(chains[2])
      refusals.append(Self.isRefused(chains[0], by: &device))
      device.pushUsed(chains[0], written: 0)
      device.publishUsed()
      let first = try driver.reap(max: 8).map(\.token)
      let again = try device.take(max: 8, in: memory)
      #expect(again.map(\.head) == chains[2...].map(\.head))
      for chain in again { device.pushUsed(chain, written: 0) }
      device.publishUsed()
      let rest = try driver.reap(max: 8).map(\.token)
      #expect(refusals == [true, true, true, true])
      #expect(first == [tokens[1], tokens[0]] && rest == Array(tokens[2...]), "\(format), \(before) places on")
    }
  }

  private static func isRefused<Device: DeviceRing & ~Copyable>(
    _ chain: DescriptorChain, by device: inout Device
  ) -> Bool {
    violation { () throws(RingError) in try device.putBack(chain) } == RingError(.putBack, UInt64(chain.head))
  }

  /// Publishes so many chains, every other one of two buffers.
  private static func offer<Driver: DriverRing & ~Copyable>(_ count: Int, _ driver: inout Driver) throws -> [UInt64] {
    let buffers = (0..<2).map { _ in RingBuffer(address: RingPlace.bufferBase, length: 9) }
    for number in 0..<count {
      let isAdded = try driver.add(
        readable: buffers.span.extracting(..<(1 + number % 2)), writable: [RingBuffer]().span, token: UInt64(number))
      #expect(isAdded)
    }
    driver.publish()
    return (0..<count).map { UInt64($0) }
  }

  @Test(arguments: RingFormat.allCases, [false, true])
  func `a relay beside a chain in hand returns every chain once`(format: RingFormat, isOfTarget: Bool) throws {
    switch format {
    case .split: try relay(SplitDriverRing.self, SplitDeviceRing.self, format, isOfTarget)
    case .packed: try relay(PackedDriverRing.self, PackedDeviceRing.self, format, isOfTarget)
    }
  }

  private func relay<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ format: RingFormat, _ isOfTarget: Bool
  ) throws {
    let places = try (0..<2).map { _ in try RingPlace(RingSetting(format: format, size: 4)) }
    let memory = try places[0].memory()
    var sender = try places[0].driver(Driver.self)
    var receiver = try places[1].driver(Driver.self)
    var source = try places[0].device(Device.self)
    var target = try places[1].device(Device.self)
    for token: UInt64 in 0..<3 {
      _ = sender.add(address: RingPlace.bufferBase, length: 20, writable: false, token: token)
      _ = receiver.add(address: RingPlace.bufferBase + 100, length: 20, writable: true, token: token)
    }
    sender.publish()
    receiver.publish()
    source.refresh()
    target.refresh()
    let taken = isOfTarget ? target.take(in: memory) : source.take(in: memory)
    let chain = try #require(taken)
    _ = source.relay(to: &target, max: 4, in: memory) { _, _ in 20 }
    if isOfTarget { target.pushUsed(chain, written: 20) } else { source.pushUsed(chain, written: 0) }
    _ = try source.serve(max: 4, in: memory) { _ in 0 }
    _ = try target.serve(max: 4, in: memory) { _ in 20 }
    source.publishUsed()
    target.publishUsed()
    let sent = try sender.reap(max: 8)
    let received = try receiver.reap(max: 8)
    #expect(Set(sent.map(\.token)) == [0, 1, 2] && sent.count == 3 && sender.freeCount == 4)
    #expect(Set(received.map(\.token)) == [0, 1, 2] && received.count == 3 && receiver.freeCount == 4)
  }
}
