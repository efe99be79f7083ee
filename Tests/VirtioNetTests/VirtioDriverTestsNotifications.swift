import LibeventConcurrency
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioNet

/// Doorbells and interrupts: none lost, none needed twice (VIRTIO 1.4 §2.7.7, §2.7.10, §2.7.13.3).
@Suite(.timeLimit(.minutes(2))) struct VirtioDriverTestsNotifications {
  private func configuration(eventIndex: Bool) -> LyingDevice.Configuration {
    var configuration = LyingDevice.Configuration()
    if !eventIndex { configuration.features.remove(.eventIndex) }
    return configuration
  }

  @Test(arguments: [true, false], 0..<4)
  func `Driver rule 12: a release between the last look and the arming is found, although no interrupt comes for it`(
    eventIndex: Bool, delay: Int
  ) async throws {
    let lying = try await Lying(configuration(eventIndex: eventIndex))
    await lying.side.perform { pair in
      // The device finishes in the driver's own turn, after its last look: `delay` turns after the frame appeared, which
      // covers the turn in which the driver arms. It interrupts exactly if the driver has asked for it by then.
      var turns = 0
      pair.beforeDriverEnds = { pair in
        guard !pair.transmit.held.isEmpty else { return turns = 0 }
        // Without this the loop might sleep before the device is done; after the release nothing keeps it awake.
        if turns >= delay { pair.release() } else { pair.requestTurn() }
        turns += 1
      }
    }
    // A watchdog: a lost wake-up ends the wait here, not in the suite's limit.
    let outcome = Outcome()
    let sender = Task {
      for number in 0..<200 {
        await outcome.record { try await lying.queue.send(Packet(copying: numbered(number), in: lying.pool)) }
      }
    }
    try await eventually("no wake-up is lost", within: .seconds(10)) { outcome.finished == 200 }
    await sender.value
    #expect(outcome.errors.isEmpty)
    try await lying.closeAndCheck()
  }

  @Test(arguments: [true, false])
  func `Driver rule 12: a frame that arrives between the last look and the arming is found`(eventIndex: Bool)
    async throws
  {
    let lying = try await Lying(configuration(eventIndex: eventIndex))
    let queue = lying.queue
    let received = Atomic<Int>(0)
    let consumer = Task {
      for await packet in queue.packets {
        #expect(packet.number == received.load(ordering: .relaxed))
        received.add(1, ordering: .relaxed)
      }
    }
    await lying.side.perform { pair in
      var number = 0
      var wait = 0
      pair.beforeDriverEnds = { pair in
        guard number < 300 else { return }
        guard wait == 0, pair.deliver(numbered(number)) else {
          // The loop is kept awake until the device is ready; once the frame is there, only the driver's own look is.
          wait = max(0, wait - 1)
          return pair.requestTurn()
        }
        number += 1
        wait = number % 4
      }
    }
    try await eventually("no frame is overlooked", within: .seconds(10)) { received.load(ordering: .relaxed) == 300 }
    try await lying.closeAndCheck()
    await consumer.value
  }

  @Test func `Driver rule 13: with EVENT_IDX avail.flags stays 0 and the device's own flag is not looked at`()
    async throws
  {
    let lying = try await Lying(configuration(eventIndex: true))
    let queue = lying.queue
    for number in 0..<40 {
      let kicks =
        await lying.side.perform { pair -> Int in
          // The flag says no, the event says yes: the event counts.
          pair.transmit.ring.usedFlags = 1
          pair.transmit.ring.availableEvent = pair.transmit.ring.availableIndex
          return pair.transmitKicks
        } ?? 0
      let outcome = Outcome()
      Task { await outcome.record { try await queue.send(Packet(copying: numbered(number), in: lying.pool)) } }
      try await eventually("it kicks") { await lying.side.perform { $0.transmitKicks } == kicks + 1 }
      await lying.side.perform { pair in
        #expect(pair.transmit.ring.availableFlags == 0)
        #expect(pair.receive.ring.availableFlags == 0)
        _ = pair.release()
      }
      try await eventually("it is released") { outcome.finished == 1 }
    }
    try await lying.closeAndCheck()
  }

  @Test func `without EVENT_IDX one interrupt ends the asking, until the loop is about to sleep again`() async throws {
    let lying = try await Lying(configuration(eventIndex: false))
    let queue = lying.queue
    let consumer = Task { for await _ in queue.packets {} }
    for round in 0..<5 {
      let outcome = Outcome()
      for number in 0..<2 {
        Task { await outcome.record { try await queue.send(Packet(copying: numbered(number), in: lying.pool)) } }
      }
      try await eventually("both frames are out and the driver has asked, round \(round)") {
        await lying.side.perform { pair in
          pair.transmit.held.count == 2 && pair.transmit.ring.availableFlags == 0
            && pair.receive.ring.availableFlags == 0
        } == true
      }
      await lying.side.perform { pair in
        let before = pair.interrupts
        pair.release()
        pair.release()
        #expect(pair.interrupts == before + 1)
        #expect(pair.transmit.ring.availableFlags == 1)
        #expect(pair.receive.ring.availableFlags == 1)
      }
      try await eventually("both sends end") { outcome.finished == 2 }
    }
    try await lying.closeAndCheck()
    await consumer.value
  }

  @Test func `Driver rule 13: an event that is not passed gets no kick, and without EVENT_IDX the flag decides`()
    async throws
  {
    let lying = try await Lying(configuration(eventIndex: true))
    let kicks = await lying.side.perform { pair -> Int in
      pair.transmit.ring.usedFlags = 0
      pair.transmit.ring.availableEvent = pair.transmit.ring.availableIndex &+ 100
      return pair.transmitKicks
    }
    // The very first question after DRIVER_OK is answered with a kick; what comes later is not.
    try await lying.queue.submit(Packet(copying: numbered(0), in: lying.pool))
    try await eventually("it is published") { await lying.held() == 1 }
    await turn(lying.queue, times: 10)
    let first = await lying.side.perform { $0.transmitKicks } ?? 0
    #expect(first - (kicks ?? 0) <= 1)
    for number in 1..<8 { try await lying.queue.submit(Packet(copying: numbered(number), in: lying.pool)) }
    await turn(lying.queue, times: 10)
    #expect(await lying.side.perform { $0.transmitKicks } == first)
    try await lying.closeAndCheck()

    let flags = try await Lying(configuration(eventIndex: false))
    try await flags.queue.submit(Packet(copying: numbered(0), in: flags.pool))
    try await eventually("it is published") { await flags.held() == 1 }
    for wanted in [false, true, false, true] {
      await turn(flags.queue, times: 10)
      let before =
        await flags.side.perform { pair -> Int in
          pair.transmit.ring.usedFlags = wanted ? 0 : 1
          return pair.transmitKicks
        } ?? 0
      try await flags.queue.submit(Packet(copying: numbered(1), in: flags.pool))
      await turn(flags.queue, times: 10)
      #expect(await flags.side.perform { $0.transmitKicks } == before + (wanted ? 1 : 0))
    }
    try await flags.closeAndCheck()
  }

  @Test func `a poisoned avail_event costs the device its kicks, and the driver nothing`() async throws {
    let lying = try await Lying(configuration(eventIndex: true))
    let rings = try #require(await lying.side.rings())
    let poison = Task.detached {
      var value: UInt16 = 0
      while !Task.isCancelled {
        value = value &* 25_173 &+ 13_849
        // Other tests need this thread of the pool too.
        if value & 0x3f == 0 { await Task.yield() }
        rings.transmit.availableEvent = value
        rings.receive.availableEvent = value
        rings.transmit.usedFlags = value
      }
    }
    let outcome = Outcome()
    let senders = (0..<8).map { _ in
      Task {
        for number in 0..<200 {
          await outcome.record { try await lying.queue.send(Packet(copying: numbered(number), in: lying.pool)) }
        }
      }
    }
    // The device looks by itself.
    try await eventually("all are released") {
      await lying.side.perform { $0.releaseAll() }
      return outcome.finished == 1600
    }
    for sender in senders { await sender.value }
    #expect(outcome.errors.isEmpty)
    poison.cancel()
    await poison.value
    try await lying.closeAndCheck()
  }

  @Test(arguments: [true, false])
  func `Driver rule 14: spurious interrupts and kicks at random change nothing`(eventIndex: Bool) async throws {
    let lying = try await Lying(configuration(eventIndex: eventIndex))
    let queue = lying.queue
    await lying.side.perform { pair in pair.whenKicked = { $0.loopBack() } }
    let storm = Task.detached {
      var generator = SystemRandomNumberGenerator()
      while !Task.isCancelled {
        let times = Int.random(in: 0..<50, using: &generator)
        await lying.side.perform { pair in
          for _ in 0..<times { pair.interrupt() }
          if times & 1 == 0 { pair.loopBack() }
        }
      }
    }
    let consumer = Task { () -> Int in
      var count = 0
      for await packet in queue.packets {
        #expect(packet.array == numbered(count))
        count += 1
        if count == 3000 { break }
      }
      return count
    }
    for number in 0..<3000 { try await queue.send(Packet(copying: numbered(number), in: lying.pool)) }
    #expect(await consumer.value == 3000)
    storm.cancel()
    await storm.value
    try await lying.closeAndCheck()
  }

  @Test func `a lost interrupt delays a send until the next one, and a close ends it`() async throws {
    let lying = try await Lying()
    let queue = lying.queue
    let outcomes = (0..<2).map { _ in Outcome() }
    Task { await outcomes[0].record { try await queue.send(Packet(copying: numbered(0), in: lying.pool)) } }
    try await eventually("it is published") { await lying.held() == 1 }
    await lying.side.perform { pair in
      pair.release(interrupt: .never)
      pair.interrupt()
    }
    try await eventually("a late interrupt is enough") { outcomes[0].finished == 1 }

    Task { await outcomes[1].record { try await queue.send(Packet(copying: numbered(1), in: lying.pool)) } }
    try await eventually("the second is published") { await lying.held() == 1 }
    await turn(queue, times: 10)
    await lying.side.perform { _ = $0.release(interrupt: .never) }
    try await lying.device.close()
    try await eventually("the close ends it") { outcomes[1].finished == 1 }
    // The device had released it before the reset: the send succeeded.
    #expect(outcomes.allSatisfy { $0.errors.isEmpty })
    try await lying.closeAndCheck()
  }

  @Test func `releases out of order reach the sends that they belong to`() async throws {
    let lying = try await Lying()
    let queue = lying.queue
    for round in 0..<50 {
      let sends = (0..<16).map { _ in Outcome() }
      for (number, send) in sends.enumerated() {
        let packet = try Packet(copying: numbered(number), in: lying.pool)
        Task { await send.record { try await queue.send(packet) } }
      }
      try await eventually("all are published") { await lying.held() == 16 }
      for _ in 0..<16 {
        let position = Int.random(in: 0..<(await lying.held()))
        let number =
          await lying.side.perform { pair -> Int in
            let frame = pair.transmitted(at: position)?.frame ?? []
            pair.release(at: position)
            return Int(frame[0])
          } ?? 0
        try await eventually("the right one ends, round \(round)") { sends[number].finished == 1 }
      }
      #expect(sends.allSatisfy { $0.finished == 1 && $0.errors.isEmpty })
    }
    try await lying.closeAndCheck()
  }
}
