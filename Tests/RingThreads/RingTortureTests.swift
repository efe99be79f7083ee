import CNetdevSystem
import NetdevTesting
import Testing
import Virtio

/// Both sides on two threads, going to sleep at every opportunity: a fence or a second look that is missing is a sleep that
/// nobody ends.
///
/// Run it in a release build too: there the store and the load on either side of a fence are neighbours.
@Suite(.serialized) struct RingTortureTests {
  /// What the two threads found out.
  @safe
  final class Result: @unchecked Sendable {
    /// Each is written by one thread and read after the join.
    var received: UInt64 = 0
    var driverError: String?
    var deviceError: String?
  }

  @Test(
    "Driver rule 12: with all barriers no wake-up is lost between two threads",
    arguments: RingSetting.all([8]) + RingSetting.all([3, 5]).filter { $0.format == .packed }, [1, 2, 8])
  func noLostWakeUp(setting: RingSetting, inFlight: Int) throws {
    var setting = setting
    // Not far from a wrap.
    setting.startIndex = setting.format == .split ? 65500 : UInt16(setting.size - 1)
    switch setting.format {
    case .split: try run(SplitDriverRing.self, SplitDeviceRing.self, setting, inFlight)
    case .packed: try run(PackedDriverRing.self, PackedDeviceRing.self, setting, inFlight)
    }
  }

  private func run<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting, _ inFlight: Int
  ) throws {
    let packets: UInt64 = 20_000
    let place = try RingPlace(setting)
    let parking = Parking()
    let result = Result()
    // Laid before the device looks.
    var driverRing = try place.driver(Driver.self)
    let device = TestThread {
      do {
        try Self.runDevice(Device.self, place, parking, packets: packets)
      } catch {
        result.deviceError = "\(error)"
      }
    }
    do {
      result.received = try Self.runDriver(
        &driverRing, parking, inFlight: min(inFlight, setting.size), packets: packets)
    } catch {
      result.driverError = "\(error)"
    }
    parking.signal(.device)
    device?.join()
    #expect(!parking.isStuck, "both sides sleep: a wake-up was lost after \(result.received) packets")
    #expect(result.driverError == nil && result.deviceError == nil)
    #expect(result.received == packets)
  }

  /// Keeps up to `inFlight` buffers out and sleeps whenever there is nothing to take back.
  static func runDriver<Ring: DriverRing & ~Copyable>(
    _ ring: inout Ring, _ parking: Parking, inFlight: Int, packets: UInt64
  ) throws -> UInt64 {
    var sent: UInt64 = 0
    var received: UInt64 = 0
    var random = SeededRandom(seed: 1)
    while received < packets {
      while sent < packets, ring.inFlight + ring.unpublished < inFlight,
        ring.add(address: RingPlace.bufferBase, length: 64, writable: true, token: sent)
      {
        sent += 1
      }
      ring.publish()
      if ring.needsKick() { parking.signal(.device) }
      // A random pause moves the two threads against each other.
      var pause = random.next() % 32
      while pause > 0, !ring.hasUsed { pause -= 1 }
      if !ring.hasUsed, !ring.armInterrupt() {
        guard parking.park(.driver) else { return received }
      }
      while let used = try ring.nextUsed() {
        guard used == UsedBuffer(token: received, written: UInt32(received % 65)) else {
          Issue.record("received \(used) for packet \(received)")
          return received
        }
        received += 1
      }
    }
    return received
  }

  /// Serves what comes and sleeps whenever there is nothing.
  static func runDevice<Ring: DeviceRing & ~Copyable>(
    _: Ring.Type, _ place: RingPlace, _ parking: Parking, packets: UInt64
  ) throws {
    let memory = try place.memory()
    var ring = try place.device(Ring.self)
    var served: UInt64 = 0
    var random = SeededRandom(seed: 2)
    while served < packets {
      let count = try ring.serve(max: 8, in: memory) { _ in
        defer { served += 1 }
        return UInt32(served % 65)
      }
      ring.publishUsed()
      if ring.needsCall() { parking.signal(.driver) }
      guard count == 0 else { continue }
      var pause = random.next() % 32
      while pause > 0, try !ring.begin() { pause -= 1 }
      if try !ring.begin(), !ring.armKick() {
        guard parking.park(.device) else { return }
      }
    }
  }
}
