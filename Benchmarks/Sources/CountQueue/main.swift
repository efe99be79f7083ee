// Receives and transmits a number of frames on one queue of the loopback device: what `count.sh` counts.
//
//     CountQueue MODE FRAMES [OPTIONS] PACKETS
//
// MODE is one of `Mode`; FRAMES, 1 to 256, are in flight at a time; OPTIONS are those of the device's URL. The device works on the
// queue's own loop, so the counts include it. It prints the allocations and the time of the loop. Its main is synchronous, and
// valgrind can follow.
import CAllocationCounter
import Dispatch
import Glibc
import Netdev
import NetdevDevices

/// What happens to each frame.
enum Mode: String, CaseIterable {
  /// Forwarded by the burst; with the addresses swapped.
  case burst
  case burstSwap = "burst-swap"
  /// Forwarded from `for await`; with the addresses swapped.
  case await
  case awaitSwap = "await-swap"
  /// Forwarded by the burst, and from `for await`, by a sender that does not wait.
  case burstTry = "burst-try"
  case awaitTry = "await-try"
  /// Forwarded by a pipeline; with the addresses swapped.
  case pipeline
  case pipelineSwap = "pipeline-swap"
  /// Forwarded from one device to another and back by two pipelines: one pool, one loop.
  case through
  /// Each transmission awaited by itself; each burst; each array of as many packets as there are in flight.
  case send
  case sendBurst = "send-burst"
  case sendArray = "send-array"
  /// Received and submitted by a plain task, outside the queue's loop.
  case outside
  /// Forwarded, and kept until 64 others have come.
  case kept
  /// Dropped; a new packet takes its place.
  case dropped
  /// Made by the program from bytes of its own, and submitted; what comes back is let go by the burst.
  case made
  /// Made by the program, each transmission awaited by itself, by as many tasks as there are in flight; another takes what comes back.
  case tasks
  /// As `burst`, with one allocation a frame that should not be there: it shows that the counter sees one.
  case planted
}

/// The allocation of `planted`.
final class Planted {}

/// Exchanges the first two addresses of an Ethernet frame.
@inline(__always)
func swapAddresses(_ frame: inout MutableRawSpan) {
  guard frame.byteCount >= 12 else { return }
  let first = unsafe frame.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self)
  let last = unsafe frame.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt32.self)
  // Six bytes of destination, then six of source; the last two of the source are the upper half of `last`.
  frame.storeBytes(of: first >> 48 | UInt64(last) << 16 | first << 48, toByteOffset: 0, as: UInt64.self)
  frame.storeBytes(of: UInt32(truncatingIfNeeded: first >> 16), toByteOffset: 8, as: UInt32.self)
}

/// One loop over `packets` frames; each ends with as many frames in flight as there were.
struct Work: Sendable {
  let mode: Mode
  let frames: Int
  let packets: Int
  /// The queue of another device on the same pool and loop.
  let other: NetworkQueue?

  func run(on queue: isolated NetworkQueue) async throws {
    switch mode {
    case .outside: try await Task.detached { [queue = queue as NetworkQueue] in try await outside(queue) }.value
    case .burst: try await burst(queue)
    case .burstSwap: try await burstSwap(queue)
    case .await: try await forward(queue)
    case .awaitSwap: try await forwardSwapped(queue)
    case .burstTry: try await burstTry(queue)
    case .awaitTry: try await forwardTrying(queue)
    case .pipeline: try await pipeline(queue)
    case .pipelineSwap: try await pipelineSwapped(queue)
    case .through: try await through(queue)
    case .send: try await send(queue)
    case .sendBurst: try await sendBursts(queue)
    case .sendArray: try await sendArrays(queue)
    case .kept: try await keep(queue)
    case .dropped: try await drop(queue)
    case .made: try await make(queue)
    case .tasks: try await sendFromTasks(queue)
    case .planted: try await plant(queue)
    }
  }

  private func burst(_ queue: isolated NetworkQueue) async throws {
    var done = 0
    while done < packets, let burst = await queue.receiveBurst() {
      done += burst.count
      try await queue.submit(burst)
    }
  }

  private func burstSwap(_ queue: isolated NetworkQueue) async throws {
    var done = 0
    while done < packets, var burst = await queue.receiveBurst() {
      done += burst.count
      burst.forEach { swapAddresses(&$0) }
      try await queue.submit(burst)
    }
  }

  private func forward(_ queue: isolated NetworkQueue) async throws {
    var left = packets
    for await packet in queue.packets {
      try await queue.submit(packet)
      left &-= 1
      if left == 0 { return }
    }
  }

  private func burstTry(_ queue: isolated NetworkQueue) async throws {
    var done = 0
    while done < packets, let burst = await queue.receiveBurst() {
      done += burst.count
      if let rest = try queue.trySubmit(burst) { throw refusal(rest.count) }
    }
  }

  private func forwardTrying(_ queue: isolated NetworkQueue) async throws {
    var left = packets
    for await packet in queue.packets {
      if let back = try queue.trySubmit(packet) { throw refusal(back.count) }
      left &-= 1
      if left == 0 { return }
    }
  }

  /// There is room for every frame: fewer are under way than the ring takes.
  private func refusal(_ count: Int) -> NetworkDeviceError {
    NetworkDeviceError(.system, "trySubmit", offered: "\(count) came back")
  }

  private func forwardSwapped(_ queue: isolated NetworkQueue) async throws {
    var left = packets
    for await var packet in queue.packets {
      packet.withMutableBytes { swapAddresses(&$0) }
      try await queue.submit(consume packet)
      left &-= 1
      if left == 0 { return }
    }
  }

  private func send(_ queue: isolated NetworkQueue) async throws {
    var left = packets
    for await packet in queue.packets {
      try await queue.send(packet)
      left &-= 1
      if left == 0 { return }
    }
  }

  private func pipeline(_ queue: isolated NetworkQueue) async throws {
    try await queue.forward(from: First(base: queue.packets.compactMap { packet in packet }, count: packets))
  }

  private func pipelineSwapped(_ queue: isolated NetworkQueue) async throws {
    let swapped = queue.packets.compactMap { (packet: consuming Packet) -> Packet? in
      packet.withMutableBytes { swapAddresses(&$0) }
      return packet
    }
    try await queue.forward(from: First(base: swapped, count: packets))
  }

  /// The frames go round through both devices; each of the two pipelines carries half of what is counted.
  private func through(_ queue: isolated NetworkQueue) async throws {
    guard let other else { throw NetworkDeviceError(.invalidConfiguration, "through", offered: "one device") }
    let count = packets / 2
    let back = Task { try await queue.forward(from: First(base: other.packets, count: count)) }
    try await other.forward(from: First(base: queue.packets, count: count))
    try await back.value
  }

  private func sendBursts(_ queue: isolated NetworkQueue) async throws {
    var done = 0
    while done < packets, let burst = await queue.receiveBurst() {
      done += burst.count
      try await queue.send(burst)
    }
  }

  private func sendArrays(_ queue: isolated NetworkQueue) async throws {
    var batch: [Packet] = []
    batch.reserveCapacity(frames)
    var done = 0
    for await packet in queue.packets {
      batch.append(packet)
      guard batch.count == frames else { continue }
      done += batch.count
      let full = batch
      batch = []
      try await queue.send(contentsOf: full)
      if done >= packets { return }
      batch.reserveCapacity(frames)
    }
  }

  private func outside(_ queue: NetworkQueue) async throws {
    let before = queue.statistics
    var done = 0
    for await packet in queue.packets {
      try await queue.submit(packet)
      done += 1
      if done == packets { break }
    }
    let after = queue.statistics
    let wakeups = Double(after.outsideWakeups - before.outsideWakeups)
    print("wakeups/packet \(wakeups / Double(after.submittedOutside - before.submittedOutside))")
  }

  private func keep(_ queue: isolated NetworkQueue) async throws {
    var kept = [Packet?](repeating: nil, count: 64)
    var done = 0
    for await packet in queue.packets {
      kept[done % 64] = packet
      try await queue.submit(packet)
      done += 1
      if done == packets { return }
    }
  }

  private func drop(_ queue: isolated NetworkQueue) async throws {
    var done = 0
    for await packet in queue.packets {
      let length = packet.count
      _ = consume packet
      try await queue.submit(Packet(count: length, in: queue.pool))
      done += 1
      if done == packets { return }
    }
  }

  private func make(_ queue: isolated NetworkQueue) async throws {
    let bytes = [UInt8](repeating: 0x42, count: 64)
    var done = 0
    while done < packets, let burst = await queue.receiveBurst() {
      done += burst.count
      for _ in 0..<burst.count { try await queue.submit(Packet(copying: bytes, in: queue.pool)) }
    }
  }

  private func makeAndSend(_ queue: isolated NetworkQueue, _ count: Int) async throws {
    let bytes = [UInt8](repeating: 0x42, count: 64)
    for _ in 0..<count { try await queue.send(Packet(copying: bytes, in: queue.pool)) }
  }

  private func sendFromTasks(_ queue: isolated NetworkQueue) async throws {
    let (work, queue, count) = (self, queue as NetworkQueue, packets / frames)
    let receiver = Task { await queue.run { queue in while await queue.receiveBurst() != nil {} } }
    defer { receiver.cancel() }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<frames {
        group.addTask { try await queue.run { queue in try await work.makeAndSend(queue, count) } }
      }
      try await group.waitForAll()
    }
  }

  private func plant(_ queue: isolated NetworkQueue) async throws {
    var done = 0
    var planted = Planted()
    while done < packets, let burst = await queue.receiveBurst() {
      for _ in 0..<burst.count { planted = Planted() }
      done += burst.count
      try await queue.submit(burst)
    }
    withExtendedLifetime(planted) {}
  }
}

/// The first packets of a sequence: what makes an endless pipeline end.
struct First<Base: PacketSequence>: PacketSequence {
  let base: Base
  let count: Int

  func makeAsyncIterator() -> Iterator { Iterator(base: base.makeAsyncIterator(), left: count) }

  struct Iterator: PacketIterator {
    var base: Base.AsyncIterator
    var left: Int

    mutating func takePacket() -> Packet? {
      guard left > 0, let packet = base.takePacket() else { return nil }
      left -= 1
      return packet
    }

    nonisolated(nonsending) mutating func nextPacket() async -> Packet? {
      guard left > 0 else { return nil }
      left -= 1
      return await base.nextPacket()
    }
  }
}

let arguments = CommandLine.arguments
guard (4...5).contains(arguments.count), let mode = Mode(rawValue: arguments[1]), let frames = Int(arguments[2]),
  (1...256).contains(frames), let packets = arguments.last.flatMap({ Int($0) })
else {
  print("usage: CountQueue \(Mode.allCases.map(\.rawValue).joined(separator: "|")) FRAMES [OPTIONS] PACKETS")
  exit(2)
}
let url = "loopback:" + (arguments.count == 5 ? "?\(arguments[3])" : "")
let finished = DispatchSemaphore(value: 0)
Task.detached {
  do {
    let urls = Array(repeating: url, count: mode == .through ? 2 : 1)
    let devices = try await NetworkDevice.open(urls)
    let other = devices.count == 2 ? devices[1] : nil
    let work = Work(mode: mode, frames: frames, packets: packets, other: other?.queues[0])
    try await devices[0].run { queue in
      for _ in 0..<frames { try await queue.submit(Packet(count: 64, in: queue.pool)) }
      let allocations = netdev_allocation_count()
      let start = DispatchTime.now().uptimeNanoseconds
      try await work.run(on: queue)
      let time = DispatchTime.now().uptimeNanoseconds - start
      print("allocations \(netdev_allocation_count() - allocations) ns/packet \(Double(time) / Double(work.packets))")
    }
    try await other?.close()
  } catch {
    print("CountQueue: \(error)")
    exit(1)
  }
  finished.signal()
}
finished.wait()
