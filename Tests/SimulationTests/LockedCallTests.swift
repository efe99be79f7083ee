import CNetdevSystem
import NetdevDevices
import NetdevTesting
import Synchronization
import Testing

/// Calls of a queue's without an `await`, each made under a lock of the program's that others in the world want, too: nobody comes
/// between.
@Suite(.enabled(if: netdev_fault_is_built(), "only a build with the trait Testing can hold turns up"))
struct LockedCallTests {
  struct Call: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// Made on the queue's loop, where frames are accepted and not published; with a queue of four places and a pool of few buffers.
    let make: @Sendable (isolated NetworkQueue) throws -> Void
  }

  private static func packet(_ queue: NetworkQueue) throws -> Packet { try Packet(copying: frame(1), in: queue.pool) }

  /// Until there is no room.
  private static func fill(_ queue: isolated NetworkQueue) throws {
    for _ in 0..<64 { if try queue.trySubmit(packet(queue)) != nil { return } }
  }

  private static let calls: [Call] = [
    Call(testDescription: "takePacket") { queue in
      _ = try queue.trySubmit(packet(queue))
      var packets = queue.packets.makeAsyncIterator()
      while packets.takePacket() != nil {}
    },
    Call(testDescription: "takePacket of a sequence that is made of one") { queue in
      _ = try queue.trySubmit(packet(queue))
      var packets = queue.packets.filter { $0.count > 0 }.makeAsyncIterator()
      while packets.takePacket() != nil {}
    },
    Call(testDescription: "receiveBurstIfAny") { queue in
      _ = try queue.trySubmit(packet(queue))
      while queue.receiveBurstIfAny() != nil {}
    },
    Call(testDescription: "trySubmit of a packet") { queue in try fill(queue) },
    Call(testDescription: "trySubmit of a burst") { queue in
      for _ in 0..<8 {
        guard let burst = try? queue.makeBurst(count: 2, length: 64) else { return }
        _ = try queue.trySubmit(burst)
      }
    },
    Call(testDescription: "makeBurst") { queue in
      var kept: [Packet] = []
      while let packet = try? packet(queue), packet.isInPool { kept.append(packet) }
      // The one that finds no room is kept too: there are no buffers but those that have been sent.
      var refused: Packet?
      while let packet = kept.popLast() {
        refused = try queue.trySubmit(packet)
        if refused != nil { break }
      }
      _ = try? queue.makeBurst(count: 2, length: 64)
      _ = consume refused
    },
  ]

  @Test(arguments: calls) func `is not held up`(_ call: Call) async throws {
    var spared: UInt64 = 0
    for seed in 0..<20 as Range<UInt64> {
      spared += try await Simulation(seed: seed).run { world in
        let lock = Lock()
        let before = netdev_fault_spared_places()
        var configuration = NetworkDevice.Configuration()
        configuration.keptPackets = 16
        let device = try await world.open("loopback:?lossless=1&queue_size=4", configuration: configuration)
        let rivals = (0..<3).map { _ in
          Task.detached {
            for _ in 0..<200 {
              if lock.mutex.withLockIfAvailable({ _ in true }) == nil { world.find("held up under a lock") }
              await Task.yield()
            }
          }
        }
        try await device.queues[0].run { queue in
          for _ in 0..<10 {
            try lock.mutex.withLock { _ in try call.make(queue) }
            while queue.receiveBurstIfAny() != nil {}
            try await queue.sleep(for: .microseconds(10))
          }
        }
        for rival in rivals { await rival.value }
        try await device.close()
        return netdev_fault_spared_places() - before
      }
    }
    // The call does come to such places.
    #expect(spared > 0)
  }

  private final class Lock: Sendable {
    let mutex = Mutex<Void>(())
  }
}
