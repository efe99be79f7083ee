import NetdevTesting
import Testing
import Virtio

/// The arithmetic of event indices against a definition that counts step by step.
@Suite struct EventIndexTests {
  /// True when one of the entries old, old+1, … new−1 is the event.
  private func counted(_ event: UInt16, _ old: UInt16, _ new: UInt16) -> Bool {
    var index = old
    while index != new {
      if index == event { return true }
      index &+= 1
    }
    return false
  }

  @Test("Driver rule 10: exhaustive near 0, the size and 65535")
  func corners() {
    let corners = [0, 256, 32768, 65535].flatMap { centre in (-4...4).map { UInt16(truncatingIfNeeded: centre + $0) } }
    for old in corners {
      for step in 0..<260 {
        let new = old &+ UInt16(step)
        for event in corners {
          let isPassed = EventIndex.isPassed(event, from: old, to: new)
          if isPassed != counted(event, old, new) {
            Issue.record("event \(event), from \(old) to \(new)")
            return
          }
        }
      }
    }
  }

  // §2.7.7.1 counts in 16 bits that wrap, so the answer depends on two differences alone: how far the event lies from the
  // old index and how far the new one does. `shift` holds the function to that; with it, what is true of one start is true
  // of all, and 2³² cases are the whole function. Here are those at the corners of one of the two differences.

  @Test("Driver rule 10: a common shift of event, old and new index changes nothing")
  func shift() {
    var random = SeededRandom(seed: 10)
    for _ in 0..<300_000 {
      let word = random.next()
      let (event, shift) = (UInt16(truncatingIfNeeded: word), UInt16(truncatingIfNeeded: word >> 16))
      // Half of the advances are as short as real ones.
      let old = UInt16(truncatingIfNeeded: word >> 32)
      let new = word >> 63 == 0 ? old &+ UInt16(word >> 48 & 0x1ff) : UInt16(truncatingIfNeeded: word >> 48)
      let isPassed = EventIndex.isPassed(event, from: old, to: new)
      if EventIndex.isPassed(event &+ shift, from: old &+ shift, to: new &+ shift) != isPassed {
        Issue.record("event \(event), from \(old) to \(new), shifted by \(shift)")
        return
      }
    }
  }

  @Test("Driver rule 10: all events at the corner advances, and all advances at the corner events")
  func sweep() {
    for old: UInt16 in [0, 65535] {
      for advance: UInt16 in [0, 1, 2, 255, 256, 32767, 32768, 65534, 65535] {
        for event: UInt16 in 0 ... .max {
          let isInside = event &- old < advance
          if EventIndex.isPassed(event, from: old, to: old &+ advance) != isInside {
            Issue.record("event \(event), from \(old) by \(advance)")
            return
          }
        }
      }
      for event: UInt16 in [0, 1, 255, 32767, 32768, 65534, 65535] {
        for advance: UInt16 in 0 ... .max
        where EventIndex.isPassed(event, from: old, to: old &+ advance) != (event &- old < advance) {
          Issue.record("event \(event), from \(old) by \(advance)")
          return
        }
      }
    }
  }
}
