// A program whose code is at top level: it opens the loopback device and uses its queue from there, outside the queue's loop.
//
//     TopLevelProgram
//
// It checks what comes back, prints how often the queue's loop was woken for a submitted packet, and ends with a line that says
// what differs, and status 1, if anything does.
import Glibc
import Netdev
import NetdevDevices

/// Ends the program unless two values are equal.
func expect<Value: Equatable>(_ found: Value, _ wanted: Value, _ what: String) {
  guard found != wanted else { return }
  print("TopLevelProgram: \(what): \(found), not \(wanted)")
  exit(1)
}

/// A frame that carries a number behind its Ethernet header.
func numbered(_ number: Int, in pool: PacketPool) throws -> Packet {
  var packet = try Packet(count: 64, in: pool)
  packet.withMutableBytes { $0.storeBytes(of: number, toByteOffset: 16, as: Int.self) }
  return packet
}

/// The number that a frame carries, or -1 when it has another length.
func number(of packet: borrowing Packet) -> Int {
  packet.withBytes { bytes in
    guard bytes.byteCount == 64 else { return -1 }
    return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 16, as: Int.self)
  }
}

let device = try await NetworkDevice.open("loopback:")
let queue = device.queues[0]
let pool = device.pool
let running = Task { try await device.run { queue in try await queue.closed() } }

// Frames go round, one at a time for this code. It ends with the last that is under way: at top level the language keeps the
// iterator of a loop that is left, and with it what has been fetched ahead, until the program ends.
let frames = 64
let total = 100_000
for number in 0..<frames { try await queue.submit(numbered(number, in: pool)) }
let before = queue.statistics
var received = 0
for await packet in queue.packets {
  MainActor.assertIsolated()
  expect(number(of: packet), received % frames, "the number of frame \(received)")
  received += 1
  if received <= total { try await queue.submit(packet) }
  if received == total + frames { break }
}
let after = queue.statistics
expect(received, total + frames, "frames received")
let submitted = after.submittedOutside - before.submittedOutside
let wakeups = after.outsideWakeups - before.outsideWakeups
expect(submitted, UInt64(total), "packets submitted outside")
expect(wakeups * 32 <= submitted, true, "one wake-up for 32 packets at most, of \(wakeups) for \(submitted)")

/// The frames that are under way come back, and no other.
func expectBack(_ numbers: Range<Int>, _ what: String) async {
  var left = Array(numbers)[...]
  guard !left.isEmpty else { return }
  for await packet in queue.packets {
    expect(number(of: packet), left.removeFirst(), "the number of a frame \(what)")
    if left.isEmpty { return }
  }
  expect(left, [], "frames missing \(what)")
}

let receipt = try await queue.submitForReceipt(numbered(1000, in: pool))
try await receipt.released
MainActor.assertIsolated()
await expectBack(1000..<1001, "submitted for a receipt")

try await queue.send(numbered(1001, in: pool))
await expectBack(1001..<1002, "sent")

try await queue.send(contentsOf: (2000..<2100).map { try numbered($0, in: pool) })
MainActor.assertIsolated()
await expectBack(2000..<2100, "sent as an array")

// Bursts that are made here: one submitted and received as bursts, one sent.
for first in [3000, 4000] {
  var burst = try await queue.makeBurst(count: 20, length: 64)
  var next = first
  burst.forEach { frame in
    frame.storeBytes(of: next, toByteOffset: 16, as: Int.self)
    next += 1
  }
  if first == 3000 { try await queue.submit(burst) } else { try await queue.send(burst) }
  next = first
  while next < first + 20, var burst = await queue.receiveBurst() {
    MainActor.assertIsolated()
    burst.forEach { frame in
      expect(unsafe frame.unsafeLoadUnaligned(fromByteOffset: 16, as: Int.self), next, "a number in a burst")
      next += 1
    }
  }
  expect(next, first + 20, "the end of a burst")
}

try await device.close()
try await running.value
expect(await queue.receiveBurst()?.count, nil, "frames after the end")
let statistics = queue.statistics
// Of the first loop, then one for the receipt, one sent, the array, and the two bursts.
let all = UInt64(frames + total + 1 + 1 + 100 + 20 + 20)
expect(statistics.packetsSubmitted, all, "packets submitted")
expect(statistics.packetsReleased, all, "packets released")
expect(statistics.packetsReceived, all, "packets received")
expect(statistics.packetsFailed, 0, "packets failed")
expect(device.totalStatistics.packetsSubmitted, all, "packets submitted to the device")
expect(pool.copies, 0, "copies")
expect(pool.free, pool.configuration.slots, "free slots of the pool")
print("wakeups/packet \(Double(wakeups) / Double(submitted))")
