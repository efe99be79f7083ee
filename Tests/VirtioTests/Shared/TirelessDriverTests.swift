import Glibc
import RingThreads
import Testing
import Virtio

/// Invariant 6: what a device takes at once has an end, however quickly the driver makes more of it.
@Suite(.serialized) struct TirelessDriverTests {
  @Test(arguments: RingFormat.allCases)
  func `a batch of malformed chains is no longer than the ring`(format: RingFormat) throws {
    let setting = RingSetting(format: format, size: 64)
    switch format {
    case .split: try run(SplitDriverRing.self, SplitDeviceRing.self, setting)
    case .packed: try run(PackedDriverRing.self, PackedDeviceRing.self, setting)
    }
  }

  private func run<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting
  ) throws {
    let place = try RingPlace(setting)
    let memory = try place.memory()
    _ = try place.driver(Driver.self)
    var device = try place.device(Device.self)
    // Memory that the device does not have.
    let driver = TirelessDriver(place, address: 5, length: 64, isWritable: false, limit: 100_000)
    let thread = try #require(TestThread { driver.run() })
    var longest: UInt64 = 0
    while !driver.isOver, device.failure == nil {
      let before = device.malformedChains
      device.refresh()
      let chain = device.take(in: memory)
      #expect(chain == nil)
      longest = max(longest, device.malformedChains - before)
      device.publishUsed()
      // Nothing was there: leave the driver the processor.
      if before == device.malformedChains { sched_yield() }
    }
    driver.stop()
    thread.join()
    #expect(device.failure == nil && longest <= UInt64(setting.size) && longest > 0)
    #expect(device.malformedChains >= 50_000, "it goes on with the next batch")
  }
}
