import CNetdevSystem
import Glibc
import RingThreads
import Testing
import Virtio

/// A peer that changes everything while it is being looked at: only what was copied may be checked and used.
@Suite(.serialized) struct CopyOnceTests {
  /// A word that tells the mutator to stop.
  @safe
  final class Flag: @unchecked Sendable {
    private let word = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
    init() { unsafe word.initialize(to: 0) }
    deinit { unsafe word.deallocate() }
    var isSet: Bool { unsafe netdev_load_acquire_u32(word) != 0 }
    func set() { unsafe netdev_store_release_u32(word, 1) }
  }

  /// Whether another round is to be made: so many, and more while the mutator has not been met at work, up to a minute.
  private static func goesOn(_ round: UInt32, least: UInt32, met: Bool, since start: UInt64) -> Bool {
    // On a busy machine the mutator has to be let in.
    if round % 1024 == 0 { sched_yield() }
    return round < least || (!met && netdev_monotonic_nanoseconds() - start < 60_000_000_000)
  }

  @Test("Device rule 2: descriptors and tables that change while they are read never lead outside")
  func descriptors() throws {
    let block = try RingBlock(size: 4)
    let memory = try block.memory()
    var ring = try block.device { $0.indirect = true }
    let stop = Flag()
    let base = RingBlock.bufferBase
    let good = RawDescriptor(base + 4096, 64)
    let bad = RawDescriptor(0xdead_0000_0000, .max, RawDescriptor.write)
    block.setDescriptor(0, good)
    block.setDescriptor(1, RawDescriptor(base, 32, RawDescriptor.indirect))
    block.setTable(at: 0, [RawDescriptor(base + 4096, 64, RawDescriptor.next, next: 1), good])
    let mutator = TestThread {
      while !stop.isSet {
        for descriptor in [bad, good] {
          block.setDescriptor(0, descriptor)
          block.setTable(at: 16, [descriptor])
          block.setDescriptor(
            1, RawDescriptor(base, descriptor == bad ? 16 : 32, RawDescriptor.indirect))
        }
      }
    }
    defer {
      stop.set()
      mutator?.join()
    }
    var accepted = 0
    var refused = 0
    let start = netdev_monotonic_nanoseconds()
    var round: UInt32 = 0
    while Self.goesOn(round, least: 200_000, met: accepted > 0 && refused > 0, since: start) {
      let index = UInt16(truncatingIfNeeded: round)
      round += 1
      block.setAvail(index, head: index & 1)
      block.availIdx = index &+ 1
      do throws(RingError) {
        _ = try ring.serve(max: 1, in: memory) { chain in
          for segment in 0..<chain.readableCount + chain.writableCount {
            let place = unsafe chain.segments[segment]
            let start = unsafe place.base - block.buffers
            if start < 0 || place.length < 0 || start + place.length > RingBlock.bufferBytes {
              Issue.record("a segment of \(place.length) bytes at \(start)")
            }
          }
          accepted += 1
          return 0
        }
      } catch {
        refused += 1
        guard ring.failure == nil else {
          Issue.record("broken by \(error)")
          return
        }
      }
    }
    #expect(accepted > 0 && refused > 0, "the mutator was met at work: \(accepted) good, \(refused) bad")
  }

  @Test("Driver rule 16: a used element that changes while it is read is one of its values, checked")
  func usedElements() throws {
    let block = try RingBlock(size: 4)
    var ring = try block.driver()
    let stop = Flag()
    let mutator = TestThread {
      while !stop.isSet {
        for slot: UInt16 in 0..<4 {
          block.setUsed(slot, id: .max, length: .max)
          block.setUsed(slot, id: 0, length: 100)
        }
      }
    }
    defer {
      stop.set()
      mutator?.join()
    }
    var returned = 0
    var broken = 0
    let start = netdev_monotonic_nanoseconds()
    var round: UInt32 = 0
    while Self.goesOn(round, least: 100_000, met: returned > 0 && broken > 0, since: start) {
      round += 1
      guard ring.add(address: 0, length: 100, writable: true, token: 5) else {
        Issue.record("no room")
        return
      }
      ring.publish()
      block.usedIdx = ring.publishedIndex
      do throws(RingError) {
        if let used = try ring.nextUsed() {
          returned += 1
          if used.token != 5 || used.written > 100 { Issue.record("\(used)") }
        }
        ring.drain { _ in Issue.record("still outstanding") }
      } catch {
        broken += 1
        var count = 0
        ring.drain { _ in count += 1 }
        #expect(count == 1)
      }
      // From the start again: head 0 is the one that the mutator knows.
      try ring.reset()
    }
    #expect(returned > 0 && broken > 0, "the mutator was met at work: \(returned) good, \(broken) bad")
  }
}
