import CNetdevSystem
import Foundation
import Glibc
import LibeventConcurrency
import Netdev
import NetdevDevices
import Synchronization
import TestSupport
import Testing

/// The whole way round: driver, rings, software device, and back, in every combination of what can be negotiated.
@Suite(.timeLimit(.minutes(3))) struct VirtioDriverTestsLoopback {
  /// One combination.
  struct Case: Sendable, CustomTestStringConvertible {
    var placement: String
    var features: Int
    var size: Int
    var queues: Int
    /// Packed rings, buffers used in order.
    var rings = ""
    var url: String {
      "loopback:?lossless=1&placement=\(placement)&queue_size=\(size)&queues=\(queues)&mrg_rxbuf=\(features & 1)"
        + "&event_idx=\(features >> 1 & 1)&indirect=\(features >> 2 & 1)\(rings)"
    }
    var testDescription: String { url }
  }

  private static let cases =
    ["inline", "own"].flatMap { placement in
      (0..<8).flatMap { features in
        [2, 4, 256, 1024].flatMap { size in
          [1, 2].map { Case(placement: placement, features: features, size: size, queues: $0) }
        }
      }
    } + otherRings

  private static let otherRings = ["inline", "own"].flatMap { placement in
    ["&packed=1", "&in_order=1", "&packed=1&in_order=1"].flatMap { rings in
      [0, 1, 2, 7].flatMap { features in
        (rings == "&in_order=1" ? [4, 256] : [2, 3, 5, 257, 1024]).map {
          Case(placement: placement, features: features, size: $0, queues: $0 < 256 ? 2 : 1, rings: rings)
        }
      }
    }
  }

  /// Frame `number` of a queue: its bytes are known from its number.
  private static func frame(_ number: Int, count: Int) -> [UInt8] {
    var bytes = Array(pattern[(number % 64)..<(number % 64) + count])
    for position in 0..<8 { bytes[position] = UInt8(truncatingIfNeeded: number >> (8 * position)) }
    return bytes
  }
  private static let pattern = (0..<2048).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }

  private static func equal(_ packet: borrowing Packet, _ bytes: [UInt8]) -> Bool {
    packet.withBytes { span in
      guard span.byteCount == bytes.count else { return false }
      return unsafe span.withUnsafeBytes { here in
        unsafe bytes.withUnsafeBytes { there in
          guard let first = here.baseAddress, let second = there.baseAddress else { return bytes.isEmpty }
          return unsafe memcmp(first, second, bytes.count) == 0
        }
      }
    }
  }

  @Test(arguments: cases) func `frames of every size come back byte for byte, in order, each once`(one: Case)
    async throws
  {
    let device = try await NetworkDevice.open(one.url)
    let pool = device.pool
    let sizes = Array(stride(from: 14, through: 1514, by: one.size < 256 ? 25 : 3)) + [1514]
    let senders = device.queues.map { queue in
      Task {
        for (number, size) in sizes.enumerated() {
          let packet = try Packet(copying: Self.frame(number + queue.index * 10_000, count: size), in: pool)
          if number % 7 == 3 { try await queue.send(packet) } else { try await queue.submit(packet) }
        }
      }
    }
    let threads = Mutex<Set<UInt>>([])
    try await device.run { queue in
      threads.withLock { _ = $0.insert(queue.loop.identity) }
      var number = 0
      for await packet in queue.packets {
        #expect(Self.equal(packet, Self.frame(number + queue.index * 10_000, count: sizes[number])))
        number += 1
        if number == sizes.count { break }
      }
      #expect(number == sizes.count)
      // Its last frame has come: those that sent are done before the device is closed.
      try await senders[queue.index].value
    }
    #expect(threads.withLock { $0.count } == one.queues)
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
    for queue in device.queues {
      #expect(queue.statistics.packetsReceived == UInt64(sizes.count))
      #expect(queue.statistics.packetsFailed == 0)
    }
  }

  @Test(arguments: ["inline", "own"])
  func `64 tasks send 10 000 packets each through one queue that receives at the same time`(
    placement: String
  ) async throws {
    let device = try await NetworkDevice.open("loopback:?lossless=1&placement=\(placement)")
    try await sendFromManyTasks(repetitions(10_000), bytes: 64, through: device)
  }

  @Test(arguments: ["inline", "own"])
  func `leaving a loop in the middle loses no frame: the next loop goes on where it left off`(
    placement: String
  ) async throws {
    let device = try await NetworkDevice.open("loopback:?lossless=1&placement=\(placement)&queue_size=64")
    let queue = device.queues[0]
    let pool = device.pool
    let sender = Task {
      for number in 0..<2000 { try await queue.submit(Packet(copying: Self.frame(number, count: 100), in: pool)) }
    }
    try await device.run { queue in
      var number = 0
      while number < 2000 {
        let stop = number + 1 + number % 37
        for await packet in queue.packets {
          #expect(Self.equal(packet, Self.frame(number, count: 100)))
          number += 1
          if number == stop || number == 2000 { break }
        }
      }
      try await sender.value
    }
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  /// How often a thread of this process went to sleep by itself; nil when it is gone.
  private static func sleeps(_ thread: String) -> Int? {
    guard let status = try? String(contentsOfFile: "/proc/self/task/\(thread)/status", encoding: .utf8) else {
      return nil
    }
    let line = status.split(separator: "\n").first { $0.hasPrefix("voluntary_ctxt_switches") }
    return line.flatMap { $0.split(separator: "\t").last }.flatMap { Int($0) }
  }

  /// Invariant 9.
  @Test func `an idle device sleeps: none of its threads wakes once`() async throws {
    // Three pairs: no other test of this process has a thread named after a third one.
    let device = try await NetworkDevice.open("loopback:?queues=3&placement=own&queue_size=64")
    let pool = device.pool
    for queue in device.queues {
      let consumer = Task { for await _ in queue.packets { return } }
      try await queue.send(Packet(copying: Self.frame(1, count: 64), in: pool))
      await consumer.value
    }
    // Somebody waits for a frame that does not come: the usual idle state.
    let waiting = device.queues.map { queue in Task { for await _ in queue.packets {} } }
    try await Task.sleep(for: .milliseconds(500))
    let threads = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").filter { thread in
      let name = try? String(contentsOfFile: "/proc/self/task/\(thread)/comm", encoding: .utf8)
      return ["loopback/2\n", "device/2\n"].contains(name)
    }
    #expect(threads.count == 2)
    let before = threads.map { Self.sleeps($0) }
    #expect(before.allSatisfy { $0 != nil })
    try await Task.sleep(for: .seconds(3))
    #expect(threads.map { Self.sleeps($0) } == before)
    try await device.close()
    for task in waiting { await task.value }
  }
}
