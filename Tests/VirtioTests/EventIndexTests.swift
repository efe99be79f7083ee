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

  @Test("Driver rule 10: every event against every advance of 16 bits")
  func sweep() {
    // By symmetry only the differences matter: all advances at a few starts, all events at a few advances.
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
      for event: UInt16 in [0, 1, 255, 65535] {
        for advance: UInt16 in 0 ... .max
        where EventIndex.isPassed(event, from: old, to: old &+ advance) != (event &- old < advance) {
          Issue.record("event \(event), from \(old) by \(advance)")
          return
        }
      }
    }
  }
}
