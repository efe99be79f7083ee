import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import VirtioNet

/// Any argument of a public call gives a result or a typed error: nothing traps, and nothing stale is shown.
@Suite(.timeLimit(.minutes(2))) struct ArgumentTests {
  static let extremes = [Int.min, Int.min + 1, -65_536, -1, 0, 1, 63, 64, 65, 65_535, 65_536, .max - 1, .max]

  @Test(arguments: extremes, [0, 64, 1920, 1921, 65_535])
  func `packets of any length are changed by any number, or say why not`(_ number: Int, _ count: Int) throws {
    let pool = try PacketPool(.init(slots: 64, hugePages: false))
    func expectLength(
      _ change: (inout Packet) throws -> Void, sourceLocation: SourceLocation = #_sourceLocation,
      _ expected: (Int) -> Int?
    ) throws {
      let bytes = numbered(7, count: count)
      var packet = try Packet(copying: bytes, in: pool)
      do {
        try change(&packet)
        #expect(packet.count == expected(number), sourceLocation: sourceLocation)
        let length = packet.count
        #expect(packet.withBytes { $0.byteCount } == length, sourceLocation: sourceLocation)
      } catch let error as NetworkDeviceError {
        #expect(error.code == .frameTooLong && expected(number) == nil, sourceLocation: sourceLocation)
        #expect(packet.array == bytes, sourceLocation: sourceLocation)
      }
    }
    try expectLength({ $0.truncate(to: number) }) { (0..<count).contains($0) ? $0 : count }
    try expectLength({ $0.removeFirst(number) }) { count - min(max($0, 0), count) }
    try expectLength({ try $0.resize(to: number) }) { (0...65_535).contains($0) ? $0 : nil }
    try expectLength({ try $0.prepend(count: number) }) { (0...(65_535 - count)).contains($0) ? count + $0 : nil }
    let made: Int?
    do { made = try Packet(count: number, in: pool).count } catch { made = nil }
    #expect(made == ((0...65_535).contains(number) ? number : nil))
    #expect(pool.free == 64)
  }

  @Test func `a frame of any length that is prepended to and grown keeps its bytes, in however many steps`() throws {
    let pool = try PacketPool(.init(slots: 64, hugePages: false))
    var packet = try Packet(copying: numbered(7), in: pool)
    var expected = numbered(7)
    for step in [1, 60, 64, 128, 1700, 3000, 20_000] {
      let kept = packet
      try packet.prepend(count: step)
      expected = [UInt8](repeating: 0, count: step) + expected
      #expect(packet.array == expected)
      try packet.resize(to: packet.count + step)
      expected += [UInt8](repeating: 0, count: step)
      #expect(packet.array == expected)
      #expect(kept.array.count == expected.count - 2 * step)
    }
  }

  @Test(arguments: extremes)
  func `bursts of any number are made, read and sent, or say why not`(_ number: Int) async throws {
    let driver = ScriptedDriver(mode: .release)
    var configuration = NetworkDevice.Configuration()
    configuration.pool = try PacketPool(.init(slots: 1024, hugePages: false))
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    try await device.run { queue in
      let burst = try queue.makeBurst(count: number, length: 60)
      #expect(burst.count == min(max(number, 0), 64))
      let read = burst.withBytes(at: number) { $0.byteCount }
      #expect(read == ((0..<burst.count).contains(number) ? 60 : nil))
      try await queue.submit(burst)
      do {
        var empty = try queue.makeBurst(count: 2, length: number)
        empty.forEach { #expect($0.byteCount == number) }
        while empty.popLast() != nil {}
        #expect(empty.withBytes(at: 0) { _ in } == nil)
        try await queue.submit(empty)
      } catch {
        let error = error as? NetworkDeviceError
        #expect(error?.code == .frameTooLong && !(0...1514).contains(number))
      }
      try await queue.forward(
        from: AsyncStream { continuation in
          for _ in 0..<3 { continuation.yield(try? Packet(copying: numbered(1), in: queue.pool)) }
          continuation.finish()
        }.compactMap { $0 }, inFlight: number)
      try await queue.send(contentsOf: [])
    }
    try await eventually("every buffer is back") { device.pool.free == 1024 }
  }

  @Test(arguments: extremes)
  func `pools and devices of any layout are made or refused in words`(_ number: Int) async throws {
    for change: (inout PacketPool.Configuration) -> Void in [
      { $0.slots = min(number, 4096) }, { $0.slotSize = number }, { $0.headroom = number }, { $0.reserve = number },
    ] {
      var layout = PacketPool.Configuration(slots: 64, hugePages: false)
      change(&layout)
      do {
        _ = try PacketPool(layout)
      } catch {
        #expect(error.code == .invalidConfiguration)
      }
    }
    let fitting = PacketPool.Configuration.fitting([], keptPackets: number)
    #expect(fitting.slots > 0)
    _ = fitting.advice(for: [], keptPackets: number)
    for change: (inout NetworkDevice.Configuration) -> Void in [
      { $0.cpus = [number] }, { $0.queuePairs = number }, { $0.queueSize = number },
    ] {
      var configuration = NetworkDevice.Configuration()
      change(&configuration)
      do {
        let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .release), configuration: configuration)
        try await device.queues[0].send(Packet(copying: numbered(1), in: device.pool))
        try await device.close()
      } catch {
        #expect(error.code == (configuration.cpus.isEmpty ? .invalidConfiguration : .system))
        #expect(error.description.contains("\(number)"))
      }
    }
  }

  @Test(arguments: [
    Duration(attoseconds: .min), .seconds(Int64.min), .seconds(-1), Duration(attoseconds: -1), .zero,
    Duration(attoseconds: 1), .seconds(Int64.max), Duration(attoseconds: .max),
  ])
  func `times of any length are times`(_ time: Duration) async throws {
    #expect(time.nanosecondsRoundedUp == (time <= .zero ? 0 : time < .seconds(1) ? 1 : .max))
    let loop = try LoopExecutor(name: "times", stallBound: time)
    if time <= .seconds(1) { #expect(await loop.sleep(for: time)) }
    var configuration = NetworkDevice.Configuration()
    configuration.busyPoll = time
    configuration.resetTimeout = time
    configuration.stallBound = time
    var recovery = VirtioRecovery()
    (recovery.firstDelay, recovery.longestDelay) = (time, time)
    var lying = LyingDevice.Configuration()
    lying.recovery = recovery
    let side = LyingDevice(lying)
    for open in [
      { try await NetworkDevice.open(driver: ScriptedDriver(mode: .release), configuration: configuration) },
      { try await NetworkDevice.open("loopback:", configuration: configuration) },
      { try await NetworkDevice.open(driver: VirtioNetDriver(transport: side), configuration: configuration) },
    ] {
      let device = try await open()
      try await device.queues[0].submit(Packet(copying: numbered(1), in: device.pool))
      for _ in 0..<3 { side.lose(isGone: { true }) }
      do {
        try await device.close()
      } catch {
        #expect(error.code == .resetNotConfirmed && time <= .seconds(1))
      }
    }
  }

  @Test(arguments: [
    Duration(attoseconds: .min), .seconds(Int64.min), .seconds(-1), Duration(attoseconds: -1), .zero,
    Duration(attoseconds: 1), .seconds(Int64.max), Duration(attoseconds: .max),
  ])
  func `waits for a time of any length are waits`(_ time: Duration) async throws {
    let driver = ScriptedDriver(mode: .release)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let now = queue.clock.now
    let then = now.advanced(by: time)
    #expect(time == .zero ? then == now : time < .zero ? then < now : then > now)
    let isShort = time <= .seconds(1)
    try await queue.run { queue in
      try queue.every(time) {}.cancel()
      if !isShort {
        let value = try await queue.withDeadline(time) { _ in 1 }
        #expect(value == 1)
        return
      }
      try await queue.sleep(for: time)
      try await queue.clock.sleep(for: time)
      if let burst = try await queue.receiveBurst(within: time) { Issue.record("\(burst.count) frames") }
      let error = await #expect(throws: NetworkDeviceError.self) {
        try await queue.withDeadline(time) { try await $0.sleep(for: .seconds(3600)) }
      }
      #expect(error?.code == .timedOut)
    }
    for wait: @Sendable () async throws -> Void in [
      { try await queue.sleep(for: time) }, { _ = try await queue.receiveBurst(within: time) },
      { try await queue.withDeadline(time) { try await $0.sleep(for: time) } },
      { _ = try await driver.nextSent(within: time) },
    ] {
      let (outcome, begun) = (Outcome(), Tally(1))
      let task = Task {
        begun.add(0)
        await outcome.record(wait)
      }
      try await eventually("it has begun") { begun.total == 1 }
      if !isShort { task.cancel() }
      await task.value
      #expect(outcome.errors.allSatisfy { [.cancelled, .timedOut].contains($0.code) }, "\(outcome.errors)")
    }
    var (histogram, capture) = (LatencyHistogram(), CaptureFile())
    histogram.add(time)
    let frame: [UInt8] = [1, 2, 3]
    unsafe capture.append(frame.span.bytes, at: time)
    #expect(histogram.quantile(1) != nil && capture.count == 1)
    try await device.close()
  }

  @Test(arguments: [
    -Double.infinity, -1, 0, 0.5, 1, 2, .infinity, .nan, .leastNonzeroMagnitude, .greatestFiniteMagnitude,
  ])
  func `a quantile of any fraction is a time`(_ fraction: Double) async throws {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .release))
    try await device.queues[0].send(Packet(copying: numbered(1), in: device.pool))
    #expect(device.queues[0].statistics.residency.quantile(fraction) != nil)
    try await device.close()
  }

  /// Frames in several buffers were shown from a copy that nobody threw away when they were changed.
  @Test func `what is read of a burst is what it was changed to, in however many buffers`() async throws {
    let driver = ScriptedDriver(mode: .hold, mtu: 9000, receiveBufferSize: 1514)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for length in [64, 4000, 9014] { #expect(await driver.deliver(numbered(length, count: length))) }
    try await queue.run { queue in
      guard var burst = await queue.receiveBurst() else { return }
      #expect(burst.count == 3)
      func bytes(_ burst: borrowing PacketBurst, _ position: Int) -> [UInt8] {
        burst.withBytes(at: position) { bytes in (0..<bytes.byteCount).map { bytes.unsafeLoadUnchecked($0) } } ?? []
      }
      var expected = [64, 4000, 9014].map { numbered($0, count: $0) }
      for round in 1...3 {
        for position in 0..<3 { #expect(bytes(burst, position) == expected[position]) }
        // First and last byte, which lie in different buffers.
        if round == 2 {
          burst.filter { frame in
            frame.storeBytes(of: UInt8(round), toByteOffset: 0, as: UInt8.self)
            frame.storeBytes(of: UInt8(round), toByteOffset: frame.byteCount - 1, as: UInt8.self)
            return true
          }
        } else {
          burst.forEach { frame in
            frame.storeBytes(of: UInt8(round), toByteOffset: 0, as: UInt8.self)
            frame.storeBytes(of: UInt8(round), toByteOffset: frame.byteCount - 1, as: UInt8.self)
          }
        }
        for position in 0..<3 {
          expected[position][0] = UInt8(round)
          expected[position][expected[position].count - 1] = UInt8(round)
          #expect(bytes(burst, position) == expected[position])
        }
      }
      // Of the packets too, and of what the device sees.
      guard let last = burst.popLast() else { return }
      #expect(last.array == expected[2])
      let segments = last.segmentCount
      var pieces: [UInt8] = []
      last.withSegments { piece in
        for offset in 0..<piece.byteCount { pieces.append(piece.unsafeLoadUnchecked(offset)) }
      }
      #expect(segments > 1 && pieces == expected[2])
      try await queue.submit(burst)
    }
    try await eventually("they are out") { await driver.held() == 2 }
    #expect(await driver.heldBytes(at: 1).prefix(1) == [3])
    #expect(await driver.heldBytes(at: 1).suffix(1) == [3])
    try await device.close()
    try await eventually("every buffer is back") { device.pool.free == device.pool.configuration.slots }
  }

  struct OwnError: Error {}

  @Test func `a change of a burst that throws keeps what was changed until then`() async throws {
    let driver = ScriptedDriver(mode: .hold, mtu: 9000, receiveBufferSize: 1514)
    let device = try await NetworkDevice.open(driver: driver)
    #expect(await driver.deliver(numbered(1, count: 4000)))
    await device.queues[0].run { queue in
      guard var burst = await queue.receiveBurst() else { return }
      #expect(throws: OwnError.self) {
        try burst.forEach { frame in
          frame.storeBytes(of: 0xee, toByteOffset: 3999, as: UInt8.self)
          throw OwnError()
        }
      }
      #expect(burst.popLast()?.array.last == 0xee)
    }
    try await device.close()
  }
}
