import LibeventConcurrency
import Netdev
import NetdevTesting
import TestSupport
import Testing

/// Where code that uses a queue may run. The code at the top level of a program is one more: TopLevelProgram, a program of its
/// own, makes the calls from there.
enum Place: CaseIterable, Sendable {
  case onLoop, otherActor, mainActor, detachedTask, childOfLoop, taskExecutor, immediateTask, actorThatPrefersLoop
}

/// What a program may do with a queue.
enum Call: CaseIterable, Sendable {
  case packets, packetsMapped, packetsCompactMapped, packetsFiltered, receiveBurst, receiveBurstIfAny, submit
  case submitBurst, makeBurst, submitForReceipt, send, sendContents, sendBurst, forward, forwardInFlight, forwardAny
  case forwardAnyInFlight, releases, statistics, run, deviceRun, isLinkUp, linkChanges, pollableDescriptor, closed
  case close, trySubmit, trySubmitBurst, sleep, receiveBurstWithin, withDeadline, broadcast
}

private actor Elsewhere {
  private var calls = 0

  private var isBusy = true

  func stayBusy() async { while isBusy { await Task.yield() } }
  func endBusiness() { isBusy = false }

  func run(
    _ call: Call, _ queue: NetworkQueue, _ device: NetworkDevice, _ pool: PacketPool, _ stay: @escaping Stay
  ) async throws {
    // Something of the actor's own: a method that only calls on is optimized to one that never comes to its actor (Swift
    // 6.3.1, found by `assertIsolated` in a release build, before any call of a queue).
    calls += 1
    try await EverywhereTests.make(call, of: queue, device, pool, stay)
  }
}

/// Says that code is where it was put; ends the test program when it is not.
private typealias Stay = @Sendable () -> Void

/// Invariant 5: a queue is touched on its loop alone, so a call from anywhere else hops there.
@Suite(.timeLimit(.minutes(4))) struct EverywhereTests {
  @Test(arguments: Call.allCases, Place.allCases)
  func `each call works from each place`(call: Call, place: Place) async throws {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .loopback))
    let queue = device.queues[0]
    let pool = device.pool
    let elsewhere = Elsewhere()
    let stay: Stay =
      switch place {
      case .onLoop: { queue.assertIsolated() }
      case .otherActor: { elsewhere.assertIsolated() }
      case .mainActor: { MainActor.assertIsolated() }
      // It begins on the loop, and goes on elsewhere when it has waited.
      case .immediateTask: {}
      case .actorThatPrefersLoop: { elsewhere.assertIsolated() }
      case .detachedTask, .childOfLoop, .taskExecutor: { precondition(!queue.loop.isOnLoop, "on the queue's loop") }
      }
    // Each place makes the call itself: a closure that is handed on need not run where its caller is.
    switch place {
    case .onLoop: try await Self.runHere(queue, call, device, pool, stay)
    case .otherActor: try await elsewhere.run(call, queue, device, pool, stay)
    case .mainActor: try await Task { @MainActor in try await Self.make(call, of: queue, device, pool, stay) }.value
    case .detachedTask: try await Task.detached { try await Self.make(call, of: queue, device, pool, stay) }.value
    case .childOfLoop:
      try await queue.run { _ in
        async let child: Void = Self.make(call, of: queue, device, pool, stay)
        try await child
      }
    case .immediateTask:
      let task = await queue.run { _ in
        Task.immediate { try await Self.make(call, of: queue, device, pool, stay) }
      }
      try await task.value
    case .actorThatPrefersLoop:
      // Others keep the actor on threads of the pool.
      let others = (0..<4).map { _ in Task.detached { await elsewhere.stayBusy() } }
      let task = Task(executorPreference: LoopTaskExecutor(loop: queue.loop)) {
        try await elsewhere.run(call, queue, device, pool, stay)
      }
      let result = await task.result
      await elsewhere.endBusiness()
      for other in others { await other.value }
      try result.get()
    case .taskExecutor:
      try await Task(executorPreference: globalConcurrentExecutor) {
        try await Self.make(call, of: queue, device, pool, stay)
      }.value
    }
    try await device.close()
    try await eventually("every buffer is back") { pool.free == pool.configuration.slots }
  }

  private static func runHere(
    _ queue: NetworkQueue, _ call: Call, _ device: NetworkDevice, _ pool: PacketPool,
    _ stay: @escaping Stay
  ) async throws {
    try await queue.run { queue in
      #expect(queue.loop.isOnLoop)
      try await make(call, of: queue, device, pool, stay)
    }
  }

  fileprivate nonisolated(nonsending) static func make(
    _ call: Call, of queue: NetworkQueue, _ device: NetworkDevice, _ pool: PacketPool,
    _ stay: @escaping Stay
  ) async throws {
    stay()
    func fill(_ count: Int) async throws {
      for number in 0..<count {
        try await queue.submit(Packet(copying: numbered(number), in: pool))
        stay()
      }
    }
    func expectNumbers(_ numbers: Range<Int>) async {
      var next = numbers.lowerBound
      for await packet in queue.packets {
        stay()
        #expect(packet.number == next)
        next += 1
        if next == numbers.upperBound { return }
      }
      Issue.record("the sequence ended at \(next) of \(numbers)")
    }
    switch call {
    case .packets, .submit:
      try await fill(70)
      await expectNumbers(0..<70)
    case .packetsMapped:
      try await fill(20)
      var seen: [Int] = []
      let numbers = queue.packets.map { (packet: consuming Packet) in
        stay()
        return packet.number
      }
      for await number in numbers {
        stay()
        seen.append(number)
        if seen.count == 20 { break }
      }
      #expect(seen == Array(0..<20))
    case .packetsCompactMapped:
      try await fill(20)
      var seen: [Int] = []
      let odd = queue.packets.compactMap { (packet: consuming Packet) -> Int? in
        stay()
        return packet.number.isMultiple(of: 2) ? nil : packet.number
      }
      for await number in odd {
        stay()
        seen.append(number)
        if seen.count == 10 { break }
      }
      #expect(seen == (0..<10).map { $0 * 2 + 1 })
    case .packetsFiltered:
      try await fill(20)
      var seen: [Int] = []
      let even = queue.packets.filter {
        stay()
        return $0.number.isMultiple(of: 2)
      }
      for await packet in even {
        stay()
        seen.append(packet.number)
        if seen.count == 10 { break }
      }
      #expect(seen == (0..<10).map { $0 * 2 })
      await expectNumbers(19..<20)
    case .receiveBurst:
      try await fill(20)
      var left = 20
      while left > 0, let burst = await queue.receiveBurst() { left -= burst.count }
      #expect(left == 0)
    case .receiveBurstIfAny:
      #expect(await queue.receiveBurstIfAny()?.count == nil)
      try await fill(3)
      var left = 3
      while left > 0 {
        if let burst = await queue.receiveBurstIfAny() { left -= burst.count } else { await Task.yield() }
      }
    case .submitBurst:
      try await fill(5)
      var left = 5
      while left > 0, let burst = await queue.receiveBurst() {
        left -= burst.count
        try await queue.submit(burst)
      }
      // A burst may hold frames that have been round already: all five are there, in some order.
      var seen: Set<Int> = []
      for await packet in queue.packets {
        #expect(seen.insert(packet.number).inserted)
        if seen.count == 5 { break }
      }
      #expect(seen == Set(0..<5))
    case .makeBurst:
      var burst = try await queue.makeBurst(count: 64, length: 64)
      #expect(burst.count == 64)
      var number: UInt64 = 0
      burst.forEach { frame in
        frame.storeBytes(of: number, toByteOffset: 0, as: UInt64.self)
        number += 1
      }
      try await queue.submit(burst)
      await expectNumbers(0..<64)
    case .submitForReceipt:
      let receipt = try await queue.submitForReceipt(Packet(copying: numbered(0), in: pool))
      try await receipt.released
      await expectNumbers(0..<1)
    case .send:
      for number in 0..<5 { try await queue.send(Packet(copying: numbered(number), in: pool)) }
      await expectNumbers(0..<5)
    case .sendContents:
      try await queue.send(contentsOf: (0..<40).map { try Packet(copying: numbered($0), in: pool) })
      await expectNumbers(0..<40)
    case .sendBurst:
      try await fill(1)
      if let burst = await queue.receiveBurst() { try await queue.send(burst) }
      await expectNumbers(0..<1)
    case .forward:
      try await queue.forward(from: Made(count: 100, pool: pool))
      await expectNumbers(0..<100)
    case .forwardInFlight:
      try await queue.forward(from: Made(count: 100, pool: pool), inFlight: 3)
      await expectNumbers(0..<100)
    case .forwardAny:
      try await queue.forward(from: stream(of: 30, pool))
      await expectNumbers(0..<30)
    case .forwardAnyInFlight:
      try await queue.forward(from: stream(of: 30, pool), inFlight: 3)
      await expectNumbers(0..<30)
    case .releases:
      let watching = Task {
        for await event in queue.releases where event.released >= 10 { return }
      }
      try await fill(10)
      await expectNumbers(0..<10)
      // The watcher may have begun after the last release.
      while queue.statistics.packetsReleased < 10 { await Task.yield() }
      try await queue.send(Packet(copying: numbered(0), in: pool))
      await expectNumbers(0..<1)
      watching.cancel()
      await watching.value
    case .statistics:
      try await queue.send(Packet(copying: numbered(0), in: pool))
      let statistics = queue.statistics
      #expect(statistics.packetsSubmitted == 1 && statistics.packetsReleased == 1)
      #expect(device.statistics.count == 1)
      #expect(device.totalStatistics.packetsSubmitted == 1)
      await expectNumbers(0..<1)
    case .run:
      let isOnLoop = await queue.run { queue in queue.loop.isOnLoop }
      #expect(isOnLoop)
    case .deviceRun:
      try await fill(5)
      try await device.run { queue in
        queue.assertIsolated()
        var next = 0
        for await packet in queue.packets {
          queue.assertIsolated()
          #expect(packet.number == next)
          next += 1
          if next == 5 { return }
        }
      }
      // The device is closed with the last of its queues' code.
      try await queue.closed()
      #expect(await queue.receiveBurst()?.count == nil)
    case .isLinkUp:
      #expect(device.isLinkUp)
    case .linkChanges:
      let changes = device.linkChanges
      try await device.close()
      // A link that never changes: the sequence ends with the device.
      for await change in changes { Issue.record("\(change)") }
    case .closed:
      // Begun before the end; how far before is for the scheduler to say.
      let closed = Outcome()
      let waiting = Task { await closed.record { try await queue.closed() } }
      try await fill(1)
      await expectNumbers(0..<1)
      #expect(closed.finished == 0)
      try await device.close()
      stay()
      await waiting.value
      #expect(closed.finished == 1 && closed.errors.isEmpty)
    case .pollableDescriptor:
      #expect(try await queue.pollableDescriptor >= 0)
    case .trySubmit:
      for number in 0..<20 {
        let back = try queue.trySubmit(Packet(copying: numbered(number), in: pool))
        if back != nil { Issue.record("\(number) came back") }
      }
      await expectNumbers(0..<20)
    case .trySubmitBurst:
      var burst = try await queue.makeBurst(count: 8, length: 64)
      var number: UInt64 = 0
      burst.forEach { frame in
        frame.storeBytes(of: number, toByteOffset: 0, as: UInt64.self)
        number += 1
      }
      if let rest = try queue.trySubmit(burst) { Issue.record("\(rest.count) came back") }
      await expectNumbers(0..<8)
    case .sleep:
      try await queue.sleep(for: .milliseconds(2))
    case .receiveBurstWithin:
      #expect(try await queue.receiveBurst(within: .milliseconds(2))?.count == nil)
      try await fill(5)
      var left = 5
      while left > 0, let burst = try await queue.receiveBurst(within: .seconds(60)) {
        stay()
        left -= burst.count
      }
      #expect(left == 0)
    case .withDeadline:
      let isOnLoop = try await queue.withDeadline(.seconds(600)) { queue in queue.loop.isOnLoop }
      #expect(isOnLoop)
    case .broadcast:
      let copies = queue.broadcast(to: 2)
      try await fill(20)
      for copy in copies {
        var next = 0
        for await packet in copy {
          stay()
          #expect(packet.number == next)
          next += 1
          if next == 20 { break }
        }
      }
    case .close:
      try await device.close()
      try await queue.closed()
      await #expect(throws: NetworkDeviceError.self) {
        try await queue.send(Packet(copying: numbered(0), in: pool))
      }
    }
    stay()
  }

  private static func stream(of count: Int, _ pool: PacketPool) -> AsyncStream<Packet> {
    AsyncStream { continuation in
      for number in 0..<count {
        if let packet = try? Packet(copying: numbered(number), in: pool) { continuation.yield(packet) }
      }
      continuation.finish()
    }
  }
}
