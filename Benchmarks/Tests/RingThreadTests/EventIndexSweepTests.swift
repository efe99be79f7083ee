// Brings its own tests.
import RingThreads
import Testing
import Virtio

/// What a debug build takes too long for. With it run the ring's tests between two threads, the package's `RingThreads`: an optimized
/// build has the store and the load on either side of a fence next to one another, which is where a missing fence shows.
@Suite struct EventIndexSweepTests {
  @Test("Driver rule 10: every event against every advance of 16 bits")
  func everyPair() {
    // The answer depends on two differences only, which another start leaves alone: that much is tested in VirtioTests.
    for old: UInt16 in [0, 65_000] {
      var wrong = 0
      for advance: UInt16 in 0 ... .max {
        for distance: UInt16 in 0 ... .max
        where EventIndex.isPassed(old &+ distance, from: old, to: old &+ advance) != (distance < advance) { wrong += 1 }
      }
      #expect(wrong == 0)
    }
  }
}
