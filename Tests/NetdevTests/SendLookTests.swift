import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// A send looks for its release before it suspends, where the device of its loop can answer at once.
@Suite(.timeLimit(.minutes(2))) struct SendLookTests {
  /// At the beginning of a turn, or nearly.
  private static func anew(_ queue: isolated NetworkQueue) async throws -> UInt64 {
    try await queue.sleep(for: .milliseconds(1))
    return queue.loop.turn
  }

  private static func empty(_ queue: isolated NetworkQueue) {
    while let burst = queue.receiveBurstIfAny() { _ = consume burst }
  }

  @Test func `on the loop of its device a send returns within the turn, and after so many the turn ends`() async throws
  {
    let device = try await NetworkDevice.open("loopback:")
    try await device.run { queue in
      let first = try await Self.anew(queue)
      for number in 0..<32 { try await queue.send(Packet(copying: numbered(number), in: queue.pool)) }
      #expect(queue.loop.turn == first)
      #expect(queue.inFlight == 0)
      Self.empty(queue)
      for number in 0..<128 { try await queue.send(Packet(copying: numbered(number), in: queue.pool)) }
      #expect(queue.loop.turn > first)
      #expect(queue.inFlight == 0)
      Self.empty(queue)
    }
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a device elsewhere is not asked by each of many tasks`() async throws {
    let device = try await NetworkDevice.open("loopback:?placement=own")
    try await device.run { queue in
      let before = queue.statistics
      let queue = queue as NetworkQueue
      try await withThrowingTaskGroup(of: Void.self) { group in
        for task in 0..<64 {
          group.addTask {
            try await queue.run { queue in
              for number in 0..<16 {
                try await queue.send(Packet(copying: numbered(task * 16 + number), in: queue.pool))
              }
            }
          }
        }
        try await group.waitForAll()
      }
      let now = queue.statistics
      #expect(now.packetsReleased - before.packetsReleased == 64 * 16)
      // Those that are due together are rung for together.
      let rung = now.driver.kicks + now.driver.kicksSuppressed - before.driver.kicks - before.driver.kicksSuppressed
      #expect(rung < 64 * 16)
    }
  }

  /// The numbers that came, a list a task.
  private final class Seen: Sendable {
    let lists = Mutex<[[Int]]>(Array(repeating: [], count: 16))
    func add(_ number: Int) { lists.withLock { $0[number >> 32].append(number & 0xffff_ffff) } }
    var all: [[Int]] { lists.withLock { $0 } }
  }

  @Test func `tasks of one loop share a publication, and each frame is sent once and in its task's order`() async throws
  {
    let device = try await NetworkDevice.open("loopback:")
    let seen = Seen()
    try await device.run { queue in
      let before = queue.statistics.driver
      let queue = queue as NetworkQueue
      let receiver = Task {
        await queue.run { queue in
          for await packet in queue.packets {
            let number = packet.withBytes { unsafe Int($0.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self)) }
            seen.add(number)
          }
        }
      }
      try await withThrowingTaskGroup(of: Void.self) { group in
        for task in 0..<16 {
          group.addTask {
            try await queue.run { queue in
              for number in 0..<200 {
                var packet = try Packet(count: 64, in: queue.pool)
                packet.withMutableBytes {
                  $0.storeBytes(of: UInt64(task << 32 | number), toByteOffset: 0, as: UInt64.self)
                }
                try await queue.send(consume packet)
              }
            }
          }
        }
        try await group.waitForAll()
      }
      try await eventually("all have come") { seen.all.allSatisfy { $0.count == 200 } }
      receiver.cancel()
      await receiver.value
      let now = await queue.run { $0.statistics.driver }
      #expect(now.kicks + now.kicksSuppressed - before.kicks - before.kicksSuppressed < 16 * 200)
    }
    #expect(seen.all == Array(repeating: Array(0..<200), count: 16))
    #expect(device.pool.free == device.pool.configuration.slots)
  }

  @Test func `a receiver of the same loop keeps up with a task that sends and never suspends`() async throws {
    let device = try await NetworkDevice.open("loopback:")
    let (received, isThere) = (Tally(1), Tally(1))
    try await device.run { queue in
      let queue = queue as NetworkQueue
      let receiver = Task {
        await queue.run { queue in
          isThere.add(0)
          for await _ in queue.packets { received.add(0) }
        }
      }
      try await eventually("the receiver is there") { isThere.total == 1 }
      var most = 0
      for number in 0..<1000 {
        try await queue.send(Packet(copying: numbered(number), in: queue.pool))
        most = max(most, number + 1 - received.total)
      }
      // It is due when a frame has come for it, and then the next send waits.
      #expect(most <= 64)
      try await eventually("none is lost") { received.total == 1000 }
      receiver.cancel()
      await receiver.value
    }
  }

  @Test func `a cancelled task sends nothing, also where a device would take it at once`() async throws {
    let device = try await NetworkDevice.open("loopback:")
    try await device.run { queue in
      let queue = queue as NetworkQueue
      let task = Task {
        try await queue.run { queue in
          unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
          try await queue.send(Packet(copying: numbered(1), in: queue.pool))
        }
      }
      let error = await #expect(throws: NetworkDeviceError.self) { try await task.value }
      #expect(error?.code == .cancelled)
      #expect(await queue.run { $0.statistics.packetsSubmitted } == 0)
    }
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}
