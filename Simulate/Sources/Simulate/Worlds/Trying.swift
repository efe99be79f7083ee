import Netdev
import NetdevDevices
import NetdevTesting
import Synchronization

/// Calls that do not wait for room, and calls that wait for a time: what comes back finds its way later, in order, and nobody waits
/// less than he said.
let tryingScenarios: [Scenario] = [
  Scenario(name: "trying", body: tryPackets),
  Scenario(name: "trying-bursts", body: tryBursts),
  Scenario(name: "trying-locked", body: tryUnderLock),
  Scenario(name: "timers", body: keepTime),
]

private func open(_ world: SimulatedWorld) async throws -> NetworkDevice {
  var configuration = NetworkDevice.Configuration()
  configuration.keptPackets = 64
  return try await world.open(
    "loopback:?lossless=1&queue_size=\(4 << world.choose(below: 2))"
      + (world.chance(oneIn: 2) ? "&placement=own" : ""), configuration: configuration)
}

/// Two flows, one sent on the queue's loop and one elsewhere; each packet is tried until it is taken.
private func tryPackets(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await open(world)
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let refused = Count()
  let reader = Task.detached {
    for await packet in queue.packets {
      ledger.note(Frame(packet))
      await plan.pause(world)
    }
  }
  let senders = [
    world.task("the sender on the loop") {
      try await queue.run { queue in
        for number in 0..<2 * plan.size {
          await plan.pause(world)
          var packet: Packet? = try Frame(flow: 0, number: number).packet(in: queue.pool)
          while let tried = packet.take() {
            let room = tried.isInPool ? queue.transmitRoom : 0
            packet = try queue.trySubmit(tried)
            guard packet != nil else { continue }
            refused.number += 1
            if room > 0 { world.find("there was room for \(room) frames, and one came back") }
            try await queue.sleep(for: .microseconds(1 + world.choose(below: 100)))
          }
        }
      }
    },
    world.task("the sender elsewhere") {
      for number in 0..<2 * plan.size {
        await plan.pause(world)
        var packet: Packet? = try Frame(flow: 1, number: number).packet(in: queue.pool)
        while let tried = packet.take() {
          packet = try queue.trySubmit(tried)
          guard packet != nil else { continue }
          refused.number += 1
          try await Task.sleep(for: .microseconds(1 + world.choose(below: 100)))
        }
      }
    },
  ]
  try await finish(senders, world)
  try await ledger.wait(for: 4 * plan.size)
  for flow in 0..<2 { ledger.expectAll(2 * plan.size, of: flow) }
  expect(refused, in: queue, world)
  try await device.close()
  await reader.value
}

/// Senders and a reader with one lock of their own around the calls that do not wait, on the loop and elsewhere: nobody comes between
/// there who wants it, too.
private func tryUnderLock(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await open(world)
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let senders = 4
  let book = Book(senders)
  let reader = Task.detached { await readUnderLock(book, queue, ledger, world, plan) }
  let tasks = (0..<senders).map { flow in
    world.task("a sender with a lock") {
      if flow.isMultiple(of: 2) {
        while try book.sent.withLock({ try tryNext(of: flow, &$0[flow], plan.size, by: queue) }) {
          await plan.pause(world)
          if world.chance(oneIn: 2) { try await Task.sleep(for: .microseconds(1 + world.choose(below: 100))) }
        }
      } else {
        try await queue.run { queue in
          while try book.sent.withLock({ try tryNext(of: flow, &$0[flow], plan.size, by: queue) }) {
            if world.chance(oneIn: 2) { try await queue.sleep(for: .microseconds(1 + world.choose(below: 100))) }
          }
        }
      }
    }
  }
  try await finish(tasks, world)
  try await ledger.wait(for: senders * plan.size)
  for flow in 0..<senders { ledger.expectAll(plan.size, of: flow) }
  try await device.close()
  await reader.value
}

/// Takes what is at hand, in bursts and one by one, and waits without the lock when there is nothing.
private func readUnderLock(
  _ book: Book, _ queue: NetworkQueue, _ ledger: Ledger, _ world: SimulatedWorld, _ plan: Plan
) async {
  await queue.run { queue in
    var packets = queue.packets.makeAsyncIterator()
    while let packet = await packets.next() {
      ledger.note(Frame(packet))
      book.sent.withLock { _ in
        if world.chance(oneIn: 2) { queue.receiveBurstIfAny()?.forEachFrame { ledger.note(Frame($0)) } }
        while let packet = packets.takePacket() { ledger.note(Frame(packet)) }
      }
      await plan.pause(world)
    }
  }
}

/// Tries the next frame of a flow; false when there is none left.
private func tryNext(of flow: Int, _ sent: inout Int, _ size: Int, by queue: NetworkQueue) throws -> Bool {
  guard sent < size else { return false }
  if try queue.trySubmit(Frame(flow: flow, number: sent).packet(in: queue.pool)) == nil { sent += 1 }
  return true
}

/// How many frames of each flow have been sent, under the program's lock.
private final class Book: Sendable {
  let sent: Mutex<[Int]>
  init(_ flows: Int) { sent = Mutex([Int](repeating: 0, count: flows)) }
}

/// Frames go round by the burst; what finds no room is kept, and goes first when there is some. Reception does not wait for it: the
/// device could not go on.
private func tryBursts(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await open(world)
  let queue = device.queues[0]
  let ledger = Ledger(world)
  let refused = Count()
  let rounds = 3
  let reader = Task.detached {
    try await queue.run { queue in
      var kept: [Packet] = []
      while true {
        let received: PacketBurst?
        if kept.isEmpty {
          received = await queue.receiveBurst()
        } else {
          received = try await queue.receiveBurst(within: .microseconds(50))
        }
        guard var burst = received else {
          if kept.isEmpty { return }
          try trySome(of: &kept, by: queue, refused)
          continue
        }
        burst.filter { bytes in
          let frame = Frame(bytes.bytes)
          ledger.note(frame)
          // Its flow is the round that it is in; after the last one it is at its end.
          guard let frame, frame.flow + 1 < rounds else { return false }
          bytes.storeBytes(of: UInt8(frame.flow + 1), toByteOffset: 14, as: UInt8.self)
          return true
        }
        if kept.isEmpty {
          guard var rest = try queue.trySubmit(burst) else { continue }
          refused.number += rest.count
          while let packet = rest.popFirst() { kept.append(packet) }
        } else {
          while let packet = burst.popFirst() { kept.append(packet) }
          try trySome(of: &kept, by: queue, refused)
        }
      }
    }
  }
  try await sendBatches(by: queue, world, plan)
  try await ledger.expect(rounds: rounds, of: plan.size)
  expect(refused, in: queue, world)
  try await device.close()
  do { try await reader.value } catch { if !isOfEnding(error) { throw error } }
}

/// Those that there is room for, in order.
private func trySome(of packets: inout [Packet], by queue: NetworkQueue, _ refused: Count) throws {
  while !packets.isEmpty {
    guard let back = try queue.trySubmit(packets.removeFirst()) else { continue }
    packets.insert(back, at: 0)
    refused.number += 1
    return
  }
}

private func expect(_ refused: Count, in queue: NetworkQueue, _ world: SimulatedWorld) {
  let counted = queue.statistics.packetsRefused
  if counted != refused.number { world.find("\(refused.number) packets came back, \(counted) are counted") }
}

/// Sleeps, bursts that are waited for so long, deadlines and a repetition on one loop, while frames come in.
private func keepTime(_ world: SimulatedWorld, _ plan: Plan) async throws {
  let device = try await open(world)
  let queue = device.queues[0]
  let (seen, ticks) = (Count(), Count())
  let begin = world.now
  try await queue.run { queue in _ = try queue.every(.milliseconds(1)) { ticks.number += 1 } }
  let waiting = (0..<3).map { _ in
    world.task("somebody who waits") {
      for _ in 0..<plan.size { try await waitForAWhile(on: queue, seen, world) }
    }
  }
  let sender = world.task("a sender") {
    for number in 0..<plan.size {
      await plan.pause(world)
      try await send([try Frame(flow: 0, number: number).packet(in: queue.pool)], by: queue, world)
    }
  }
  try await finish(waiting, world)
  // A device that loses nothing waits for somebody to take what is left.
  let rest = Task.detached { while let burst = await queue.receiveBurst() { note(burst, seen, world) } }
  try await finish([sender], world)
  while world.isCalm, seen.number < plan.size { try await Task.sleep(for: .milliseconds(1)) }
  try await device.close()
  await rest.value
  let (due, last) = (Int((world.now - begin) / .milliseconds(1)), ticks.number)
  if last > due { world.find("what is due \(due) times was called \(last) times") }
  if world.isCalm, due > 2, last == 0 { world.find("what is due \(due) times was not called") }
  try await Task.sleep(for: .milliseconds(20))
  if ticks.number != last { world.find("a repetition goes on after its queue's end") }
}

/// One of the ways to wait for a time, and whether it was one.
private func waitForAWhile(on queue: NetworkQueue, _ seen: Count, _ world: SimulatedWorld) async throws {
  let (limit, begin) = (Duration.microseconds(world.choose(below: 3000)), world.now)
  func check(_ what: String) {
    let taken = world.now - begin
    if taken < limit { world.find("\(what) of \(limit) took \(taken)") }
  }
  switch world.choose(below: 3) {
  case 0:
    try await queue.sleep(for: limit)
    check("a sleep")
  case 1:
    if let burst = try await queue.receiveBurst(within: limit) {
      note(burst, seen, world)
    } else {
      check("a wait for a burst")
    }
  default:
    do {
      try await queue.withDeadline(limit) { queue in
        try await queue.sleep(for: .microseconds(world.choose(below: 3000)))
      }
    } catch let error as NetworkDeviceError where error.code == .timedOut {
      check("a deadline")
    }
  }
}

/// Frames that somebody has got, in whatever order.
private func note(_ burst: borrowing PacketBurst, _ seen: Count, _ world: SimulatedWorld) {
  burst.forEachFrame { bytes in
    if Frame(bytes) == nil { world.find("a frame has other bytes than it was sent with") }
    seen.number += 1
  }
}

/// A number of the tasks of one world.
private final class Count: @unchecked Sendable {
  var number = 0
}
