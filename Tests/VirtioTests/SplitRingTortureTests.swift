import CNetdevSystem
import Testing
import Virtio

/// Both sides on two threads, going to sleep at every opportunity: a fence or a second look that is missing is a sleep that
/// nobody ends.
///
/// Run it in a release build too: there the store and the load on either side of a fence are neighbours.
@Suite(.serialized) struct SplitRingTortureTests {
  /// What the two threads found out.
  @safe
  final class Result: @unchecked Sendable {
    /// Each is written by one thread and read after the join.
    var received: UInt64 = 0
    var driverError: String?
    var deviceError: String?
  }

  @Test(
    "Driver rule 12: with all barriers no wake-up is lost between two threads", arguments: [true, false], [1, 2, 8])
  func noLostWakeUp(eventIndex: Bool, inFlight: Int) throws {
    let packets: UInt64 = 50_000
    let block = try RingBlock(size: 8)
    let parking = Parking()
    let result = Result()
    // Laid before the device looks.
    var driverRing = try block.driver {
      $0.eventIndex = eventIndex
      $0.startIndex = 65500
    }
    let device = TestThread {
      do {
        try Self.runDevice(block, parking, eventIndex: eventIndex, packets: packets)
      } catch {
        result.deviceError = "\(error)"
      }
    }
    do {
      result.received = try Self.runDriver(&driverRing, parking, inFlight: inFlight, packets: packets)
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
  static func runDriver(
    _ ring: inout SplitDriverRing, _ parking: Parking, inFlight: Int, packets: UInt64
  ) throws -> UInt64 {
    var sent: UInt64 = 0
    var received: UInt64 = 0
    var random = SeededRandom(seed: 1)
    while received < packets {
      while sent < packets, ring.inFlight + ring.unpublished < inFlight,
        ring.add(address: RingBlock.bufferBase, length: 64, writable: true, token: sent)
      {
        sent += 1
      }
      ring.publish()
      if ring.needsKick() { parking.signal(.device) }
      // A random pause moves the two threads against each other.
      var pause = random.next() % 32
      while pause > 0, try ring.pendingUsed() == 0 { pause -= 1 }
      if try ring.pendingUsed() == 0, !ring.armInterrupt() {
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
  static func runDevice(_ block: RingBlock, _ parking: Parking, eventIndex: Bool, packets: UInt64) throws {
    let memory = try block.memory()
    var ring = try block.device {
      $0.eventIndex = eventIndex
      $0.startIndex = 65500
    }
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
      while pause > 0, try ring.begin() == 0 { pause -= 1 }
      if try ring.begin() == 0, !ring.armKick() {
        guard parking.park(.device) else { return }
      }
    }
  }
}
