import CLibevent
import CNetdevSystem
import Dispatch
import Glibc
import Netdev
import NetdevTesting
import Synchronization
import TestSupport
import Testing

/// The events of a queue so far.
private final class Events: Sendable {
  private let events = Mutex<[NetworkQueue.ReleaseEvent]>([])
  var all: [NetworkQueue.ReleaseEvent] { events.withLock { $0 } }
  func add(_ event: NetworkQueue.ReleaseEvent) { events.withLock { $0.append(event) } }
}

/// A device that releases when it is told to, whose queue is watched.
private struct Watched: Sendable {
  let driver = ScriptedDriver(mode: .hold)
  let device: NetworkDevice
  let events = Events()
  let watching: Task<Void, Never>
  var queue: NetworkQueue { device.queues[0] }

  init() async throws {
    device = try await NetworkDevice.open(driver: driver)
    watching = Self.watch(device.queues[0], events)
  }

  /// Every event of the queue, until it ends.
  static func watch(_ queue: NetworkQueue, _ events: Events) -> Task<Void, Never> {
    Task { for await event in queue.releases { events.add(event) } }
  }

  /// Frames go out and come back until an event is told: from then on none is missed. How many went.
  func releaseUntilTold() async throws -> UInt64 {
    var released: UInt64 = 0
    while events.all.isEmpty, released < 10_000 {
      try await queue.submit(Packet(copying: numbered(0), in: queue.pool))
      try await eventually("it is published") { await driver.held() == 1 }
      await driver.releaseFirst(1)
      released += 1
      await turn(queue, times: 10)
    }
    return released
  }

  /// Closes the device; the watcher has been told of all that there was.
  func close() async throws {
    try await device.close()
    await watching.value
  }
}

/// The notification mechanism itself: release events, and the descriptor that foreign event loops watch.
@Suite(.timeLimit(.minutes(3))) struct ReleasesTests {
  @Test func `each release is told, several at once as one event, and the queue's end ends the sequence`() async throws
  {
    let watched = try await Watched()
    let (driver, queue, events) = (watched.driver, watched.queue, watched.events)
    let before = try await watched.releaseUntilTold()
    for number in 0..<10 { try await queue.submit(Packet(copying: numbered(number), in: queue.pool)) }
    try await eventually("all are published") { await driver.held() == 10 }
    let told = events.all.count
    var releases: UInt64 = 0
    for count in [1, 3, 6] {
      await driver.releaseFirst(count)
      releases += UInt64(count)
      try await eventually("\(releases) releases are told") { events.all.last?.released == before + releases }
      #expect(events.all.last?.inFlight == 10 - Int(releases))
    }
    #expect(events.all.count <= told + 4, "one each, and what was still to be told")
    try await watched.close()
  }

  @Test func `a frame that fails is told while frames come in without a pause`() async throws {
    let watched = try await Watched()
    let (driver, queue, events) = (watched.driver, watched.queue, watched.events)
    // For each frame that is taken another one comes, so that no turn has nothing to do.
    let receiving = Task {
      await queue.run { queue in
        for await _ in queue.packets { await driver.deliver(numbered(1)) }
      }
    }
    await driver.deliver(numbered(0))
    try await eventually("they come without a pause") { queue.statistics.packetsReceived > 10_000 }
    try await eventually("it is told") {
      if events.all.isEmpty { try await sendTooLong(queue) }
      return !events.all.isEmpty
    }
    #expect(events.all.last.map { $0.failed > 0 } == true)
    try await watched.close()
    await receiving.value
  }

  /// Frames as long as a tagged one may be, without tags: they fail when the driver looks at them.
  private func sendTooLong(_ queue: NetworkQueue) async throws {
    try await queue.run { queue in
      var burst = try queue.makeBurst(count: 2, length: 1515)
      burst.forEach { frame in
        for place in 0..<frame.byteCount { frame.storeBytes(of: 0, toByteOffset: place, as: UInt8.self) }
      }
      try await queue.submit(burst)
    }
  }

  @Test func `a frame that fails is told`() async throws {
    let source = ScriptedDriver(mode: .release, mtu: 9000)
    let input = try await NetworkDevice.open(driver: source)
    let watched = try await Watched()
    let (queue, events) = (watched.queue, watched.events)
    let released = try await watched.releaseUntilTold()
    let told = events.all.count
    let forwarding = Task { try await queue.forward(from: input.queues[0].packets) }
    for failed in 1...3 as ClosedRange<UInt64> {
      // The output's device takes no frame of this length: the pipeline goes on without it.
      #expect(await source.deliver([UInt8](repeating: 0, count: 2000)))
      try await eventually("it has failed") { queue.statistics.packetsFailed == failed }
      try await eventually("it is told") { events.all.last?.failed == failed }
    }
    #expect(events.all.count <= told + 4 && events.all.last?.released == released)
    try await input.close()
    try await forwarding.value
    try await watched.close()
    #expect(events.all.count <= told + 4)
  }

  @Test(arguments: [true, false]) func `a frame that fails elsewhere than on the loop is told`(_ hasShort: Bool)
    async throws
  {
    let source = ScriptedDriver(mode: .release, mtu: 9000)
    let input = try await NetworkDevice.open(driver: source)
    let watched = try await Watched()
    let (queue, events) = (watched.queue, watched.events)
    _ = try await watched.releaseUntilTold()
    let descriptor = try await queue.pollableDescriptor
    // The loop has looked at all that there is, and sleeps.
    await turn(queue, times: 10)
    try await Task.sleep(for: .milliseconds(10))
    _ = netdev_eventfd_drain(descriptor)
    let long = [UInt8](repeating: 0, count: 2000)
    let frames = hasShort ? [long, numbered(1), long] : [long, long]
    #expect(await source.deliver(contentsOf: frames) == frames.count)
    guard let burst = await input.queues[0].receiveBurst() else {
      throw NetworkDeviceError(.system, "there is no burst")
    }
    let rest = try queue.trySubmit(burst)
    let isTaken = rest == nil
    #expect(isTaken && queue.statistics.packetsFailed == 2)
    try await eventually("it is told", within: .seconds(20)) { events.all.last?.failed == 2 }
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    #expect(unsafe poll(&entry, 1, 20_000) == 1)
    try await input.close()
    try await watched.close()
  }

  @Test func `nothing is told where nothing is new`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let descriptor = try await queue.pollableDescriptor
    for number in 0..<3 { try await queue.submit(Packet(copying: numbered(number), in: device.pool)) }
    try await eventually("all are with the device") { await driver.held() == 3 }
    await turn(queue, times: 10)
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    #expect(unsafe poll(&entry, 1, 0) == 0)
    try await device.close()
  }

  @Test func `what fails with the queue is told before its end, also to who comes late`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    for number in 0..<5 { #expect(try queue.trySubmit(Packet(copying: numbered(number), in: device.pool)) == nil) }
    try await eventually("all are published") { await driver.held() == 5 }
    let events = Events()
    let watching = Watched.watch(queue, events)
    var late = queue.releases.makeAsyncIterator()
    await turn(queue, times: 10)
    async let first = late.next()
    await turn(queue, times: 10)
    await driver.releaseFirst(1)
    #expect(await first?.released == 1)
    try await eventually("both have been told") { events.all.count == 1 }
    try await device.close()
    await watching.value
    #expect(events.all.last?.released == 1 && events.all.last?.failed == 4 && events.all.last?.inFlight == 0)
    #expect(await late.next()?.failed == 4)
    #expect(await late.next() == nil)
  }

  @Test func `a cancelled watcher goes on at once`() async throws {
    let device = try await NetworkDevice.open(driver: ScriptedDriver(mode: .hold))
    let queue = device.queues[0]
    let watching = Task { () -> Int in
      var count = 0
      for await _ in queue.releases { count += 1 }
      return count
    }
    await turn(queue, times: 10)
    watching.cancel()
    #expect(await watching.value == 0)
    try await device.close()
  }

  /// Waits with `wait` for the descriptor, takes what there is, and says which frames came.
  private func frames(
    _ count: Int, from queue: NetworkQueue, wait: @Sendable (CInt) async throws -> Void
  ) async throws -> [Int] {
    let descriptor = try await queue.pollableDescriptor
    var seen: [Int] = []
    while seen.count < count {
      try await wait(descriptor)
      _ = netdev_eventfd_drain(descriptor)
      while var burst = await queue.receiveBurstIfAny() {
        var numbers: [Int] = []
        while let packet = burst.popLast() { numbers.append(packet.number) }
        seen += numbers.reversed()
      }
    }
    return seen
  }

  private func exchange(_ wait: @escaping @Sendable (CInt) async throws -> Void) async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    let receiving = Task { try await frames(100, from: queue, wait: wait) }
    for number in 0..<100 {
      #expect(await driver.deliver(numbered(number)))
      if number % 10 == 0 { try await Task.sleep(for: .milliseconds(1)) }
    }
    #expect(try await receiving.value == Array(0..<100))
    // A release makes it readable as well, and so does the end.
    let descriptor = try await queue.pollableDescriptor
    _ = netdev_eventfd_drain(descriptor)
    try await queue.submit(Packet(copying: numbered(1), in: device.pool))
    try await eventually("it is published") { await driver.held() == 1 }
    await driver.releaseAll()
    try await wait(descriptor)
    _ = netdev_eventfd_drain(descriptor)
    #expect(queue.statistics.packetsReleased == 1)
    try await device.close()
    try await wait(descriptor)
  }

  @Test func `a plain poll loop is told`() async throws {
    try await exchange { descriptor in
      await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
          var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
          _ = unsafe poll(&entry, 1, 60_000)
          continuation.resume()
        }
      }
    }
  }

  @Test func `a Dispatch source is told`() async throws {
    try await exchange { descriptor in
      await withCheckedContinuation { continuation in
        let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: .global())
        source.setEventHandler { source.cancel() }
        source.setCancelHandler { continuation.resume() }
        source.resume()
      }
    }
  }

  @Test func `a plain libevent loop is told`() async throws {
    try await exchange { descriptor in
      await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
          let base = unsafe event_base_new()
          let event = unsafe event_new(base, descriptor, Int16(EV_READ), { _, _, _ in }, nil)
          _ = unsafe event_add(event, nil)
          _ = unsafe event_base_loop(base, Int32(EVLOOP_ONCE))
          unsafe event_free(event)
          unsafe event_base_free(base)
          continuation.resume()
        }
      }
    }
  }

  @Test func `a device that holds buffers for a millisecond shows a millisecond of residency`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let queue = device.queues[0]
    func now() -> UInt64 { DispatchTime.now().uptimeNanoseconds }
    for number in 0..<50 {
      let earlier = queue.statistics.residency
      let submitted = now()
      let receipt = try await queue.submitForReceipt(Packet(copying: numbered(number), in: device.pool))
      try await eventually("it is published") { await driver.held() == 1 }
      let published = now()
      while now() - published < 1_000_000 { try await Task.sleep(for: .milliseconds(1)) }
      let held = now() - published
      await driver.releaseAll()
      try await receipt.released
      let waited = now() - submitted
      try await eventually("it is counted") { queue.statistics.residency.total == earlier.total + 1 }
      // The frame was with the device no shorter than it was held, and no longer than the test waited for it.
      let sample = queue.statistics.residency.since(earlier)
      let bucket = try #require(sample.counts.firstIndex(of: 1))
      #expect(UInt64(2) << bucket > held, "frame \(number)")
      #expect(UInt64(1) << bucket <= waited, "frame \(number)")
    }
    #expect(queue.statistics.residency.quantile(0) ?? .zero >= .milliseconds(1))
    try await device.close()
  }
}
