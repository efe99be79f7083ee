import Glibc
import RingThreads
import Testing
import Virtio

@testable import VirtioDevice

/// Invariant 6: a driver that offers buffers of no use as quickly as they are returned keeps nobody.
@Suite(.serialized) struct TirelessBuffersTests {
  @Test(arguments: RingFormat.allCases)
  func `a look for buffers passes no more useless ones than the ring has`(format: RingFormat) throws {
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
    let other = try RingPlace(setting)
    _ = try place.driver(Driver.self)
    _ = try other.driver(Driver.self)
    var rings = EngineRings<Device>(
      receive: try place.device(Device.self), transmit: try other.device(Device.self), memory: try place.memory(),
      format: FrameFormat([.version1, .mrgRxbuf]))
    // Not even the header fits in there.
    let driver = TirelessDriver(place, address: RingPlace.bufferBase, length: 4, isWritable: true, limit: 100_000)
    let thread = try #require(TestThread { driver.run() })
    var longest: UInt32 = 0
    while !driver.isOver, !rings.receive.isBroken {
      let before = rings.receive.taken
      rings.beginReceive()
      let room = rings.takeBuffers(for: 100)
      #expect(room == 0)
      longest = max(longest, rings.receive.taken &- before)
      rings.returnBuffers()
      rings.receive.publishUsed()
      // Nothing was there: leave the driver the processor.
      if before == rings.receive.taken { sched_yield() }
    }
    driver.stop()
    thread.join()
    #expect(!rings.receive.isBroken && longest <= UInt32(setting.size) && longest > 0)
  }
}
