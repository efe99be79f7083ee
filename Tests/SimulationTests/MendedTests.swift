import NetdevDevices
import NetdevTesting
import Testing

/// What worlds have found in this package, each with its story.
@Suite struct MendedTests {
  /// One device of two was open when the opening was cancelled: its queues stayed in the room where the two were to meet, and held
  /// the device's life, which held the room. (Seed 6 of the world "forwarding", its program cancelled.)
  @Test func `two devices whose opening is cancelled leave nothing behind`() async throws {
    for seed in 0..<100 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in
        let opening = Task.detached {
          try await world.open(["loopback:?placement=own", "loopback:?placement=own&queues=2"])
        }
        try await Task.sleep(for: .microseconds(world.choose(below: 200)))
        opening.cancel()
        do { for device in try await opening.value { try await device.close() } } catch let error as NetworkDeviceError
        {
          #expect(error.code == .cancelled)
        }
      }
    }
  }
}
