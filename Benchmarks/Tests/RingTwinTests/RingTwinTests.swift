import RingLoop
import Testing
import Virtio

/// The twin is only a measure while it does the same work: the same packets come round, and every byte of both rings is the same.
@Suite struct RingTwinTests {
  static let settings = RingFormat.allCases.flatMap { format in
    [false, true].flatMap { inOrder in
      [false, true].map { RingLoopSetting(format, inOrder: inOrder, transmits: $0) }
    }
  }

  private func isSame(_ one: RingLoopMemory, _ other: RingLoopMemory) -> Bool {
    [(one.transmit, other.transmit), (one.receive, other.receive)].allSatisfy { here, there in
      let ours = UnsafeRawBufferPointer(start: here, count: RingLoopMemory.blockBytes)
      return ours.elementsEqual(UnsafeRawBufferPointer(start: there, count: RingLoopMemory.blockBytes))
    }
  }

  @Test("Bursts of 1 to 64, through many laps", arguments: settings)
  func same(setting: RingLoopSetting) throws {
    let (ours, theirs) = (RingLoopMemory(), RingLoopMemory())
    let loop = try makeRingLoop(setting, ours)
    let twin = TwinLoop(setting, theirs)
    for round in 0..<2000 {
      let burst = round % 64 + 1
      let (one, other) = (try loop.turn(burst: burst), try twin.turn(burst: burst))
      guard one == burst, other == burst, loop.counts == twin.counts, isSame(ours, theirs) else {
        Issue.record("round \(round): \(one) and \(other) of \(burst), \(loop.counts), \(twin.counts)")
        return
      }
    }
  }

  @Test("A peer that has changed one byte stops both at the same packet", arguments: settings)
  func sameLies(setting: RingLoopSetting) throws {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      let (ours, theirs) = (RingLoopMemory(), RingLoopMemory())
      let loop = try makeRingLoop(setting, ours)
      let twin = TwinLoop(setting, theirs)
      let turns = Int.random(in: 0..<12, using: &random)
      for _ in 0..<turns { _ = (try loop.turn(burst: 24), try twin.turn(burst: 24)) }
      // Where the descriptors of the next burst are, or anywhere.
      let place = Int.random(in: 0..<5_000, using: &random)
      let value = UInt8.random(in: 0...255, using: &random)
      for memory in [ours, theirs] { memory.transmit.storeBytes(of: value, toByteOffset: place, as: UInt8.self) }
      // What ours finds wrong it throws; the twin stops there.
      let one = (try? loop.turn(burst: 24)) ?? 0
      let other = try twin.turn(burst: 24)
      guard one == other || one == 0 else {
        Issue.record("byte \(place) is \(value) after \(turns) turns: \(one), the twin \(other)")
        return
      }
    }
  }
}
