import CNetdevSystem
import NetdevTesting
import Testing
import Virtio

/// The moment that decides over a lost wake-up, met on purpose: one side publishes and asks whether to tell the other, which
/// arms and looks again. When the first is told "no need" and the second sees nothing, nobody ever wakes up.
///
/// Both sides store and then load what the other stored: without the full fence on both, each load may come first. A debug
/// build has so many instructions between the two that a missing fence hardly shows; a release build shows it.
@Suite(.serialized) struct RingFenceTests {
  /// At most so many rounds, and no new one after so long: a busy machine makes fewer.
  private static let rounds: UInt32 = 300_000
  private static let nanoseconds: UInt64 = 4_000_000_000

  /// Counts what the device's thread saw; read after the join.
  @safe
  final class Count: @unchecked Sendable {
    var lost = 0
  }

  /// A short pause, sometimes a longer one, that the optimizer leaves alone: it moves the threads against each other.
  private static func pause(_ random: inout SeededRandom, _ place: RingPlace) {
    for _ in 0..<random.next() % 12 * (random.next() % 16) {
      _ = unsafe netdev_load_acquire_u16(place.block + place.layout.driverOffset)
    }
  }

  @Test(
    "Barriers: publishing against arming for a kick, and using against arming for an interrupt",
    arguments: RingSetting.all([64]).filter { !$0.inOrder })
  func storeThenLoad(setting: RingSetting) throws {
    switch setting.format {
    case .split: try storeThenLoad(SplitDriverRing.self, SplitDeviceRing.self, setting)
    case .packed: try storeThenLoad(PackedDriverRing.self, PackedDeviceRing.self, setting)
    }
  }

  private func storeThenLoad<Driver: DriverRing & ~Copyable, Device: DeviceRing & ~Copyable>(
    _: Driver.Type, _: Device.Type, _ setting: RingSetting
  ) throws {
    let place = try RingPlace(setting)
    let meeting = Meeting()
    let lostCalls = Count()
    var lostKicks = 0
    var driver = try place.driver(Driver.self)
    let thread = TestThread {
      do {
        try Self.deviceSide(Device.self, place, meeting, lostCalls)
      } catch {
        // The driver may wait at a later meeting: let it through to the end, where it misses its chain.
        meeting.arrive(1, round: 4 * Self.rounds)
      }
    }
    let end = netdev_monotonic_nanoseconds() + Self.nanoseconds
    var random = SeededRandom(seed: 3)
    var round: UInt32 = 0
    while true {
      _ = driver.add(address: RingPlace.bufferBase, length: 64, writable: true, token: UInt64(round))
      driver.disarmInterrupt()
      meeting.meet(0, round: 4 * round + 1)
      Self.pause(&random, place)
      driver.publish()
      let kicks = driver.needsKick()
      meeting.give(0, kicks)
      meeting.meet(0, round: 4 * round + 2)
      if !kicks, !meeting.answer(of: 1) { lostKicks += 1 }
      // The device has taken the chain and is about to return it.
      meeting.meet(0, round: 4 * round + 3)
      Self.pause(&random, place)
      let sees = driver.armInterrupt()
      meeting.give(0, sees)
      if round + 1 == Self.rounds || netdev_monotonic_nanoseconds() > end { meeting.finish() }
      meeting.meet(0, round: 4 * round + 4)
      let used = try driver.nextUsed()
      if used?.token != UInt64(round) {
        Issue.record("no chain in round \(round)")
        meeting.finish()
      }
      round += 1
      if meeting.isFinished { break }
    }
    meeting.arrive(0, round: 4 * Self.rounds)
    thread?.join()
    #expect(lostKicks == 0, "kicks lost in \(round) meetings")
    #expect(lostCalls.lost == 0, "interrupts lost in \(round) meetings")
  }

  private static func deviceSide<Device: DeviceRing & ~Copyable>(
    _: Device.Type, _ place: RingPlace, _ meeting: Meeting, _ lost: Count
  ) throws {
    let memory = try place.memory()
    var device = try place.device(Device.self)
    var random = SeededRandom(seed: 4)
    var round: UInt32 = 0
    while true {
      device.disarmKick()
      meeting.meet(1, round: 4 * round + 1)
      pause(&random, place)
      let sees = device.armKick()
      meeting.give(1, sees)
      meeting.meet(1, round: 4 * round + 2)
      _ = try device.begin()
      if let chain = try device.next(in: memory) { device.pushUsed(chain, written: 0) }
      meeting.meet(1, round: 4 * round + 3)
      pause(&random, place)
      device.publishUsed()
      let calls = device.needsCall()
      meeting.give(1, calls)
      meeting.meet(1, round: 4 * round + 4)
      if !calls, !meeting.answer(of: 0) { lost.lost += 1 }
      round += 1
      if meeting.isFinished { break }
    }
  }
}
