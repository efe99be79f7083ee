import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import Testing

/// What a world holds against each queue that ends: no frame is lost without a word.
@Suite struct AccountTests {
  @Test(arguments: [false, true]) func `a frame of which a driver says nothing is found`(isForgetful: Bool) async {
    for seed in 0..<10 as Range<UInt64> {
      let report = await Simulation(seed: seed).observe { world in
        let inner = ScriptedDriver(mode: .hold)
        let device = try await world.open(driver: isForgetful ? ForgetfulDriver(inner) : inner)
        for number in 0..<3 as Range<UInt8> {
          try await device.queues[0].submit(try Packet(copying: frame(number), in: device.pool))
        }
        try await Task.sleep(for: .milliseconds(10))
        try await device.close()
      }
      let wrong = report.findings.filter { $0.hasSuffix(", 0 released and 0 failed") }
      #expect(wrong.count == (isForgetful ? 1 : 0) && report.findings.count == wrong.count, "\(report)")
      if isForgetful { #expect(wrong.first?.contains("/0' has 3 frames ") == true, "\(report)") }
    }
  }

  @Test func `what comes from everywhere while the device is closed adds up`() async {
    let seen = Seen()
    for seed in 0..<100 as Range<UInt64> {
      let report = await Simulation(seed: seed).observe { world in
        let device = try await world.open("loopback:?lossless=1&queue_size=4&placement=own")
        let queue = device.queues[0]
        let senders = (0..<3).map { kind in
          Task.detached {
            for number in 0..<20 as Range<UInt8> {
              let packet = try Packet(copying: frame(number), in: device.pool)
              switch kind {
              case 0: try await queue.submit(packet)
              case 1: _ = try queue.trySubmit(packet)
              default: try await queue.run { queue in _ = try queue.trySubmit(packet) }
              }
              if world.chance(oneIn: 4) { await Task.yield() }
            }
          }
        }
        try await Task.sleep(for: .microseconds(world.choose(below: 100)))
        try await device.close()
        for sender in senders {
          let result = await sender.result
          seen.ends.insert((try? result.get()) == nil)
        }
      }
      #expect(report.findings.isEmpty && report.error == nil, "\(report)")
    }
    // Some were told.
    #expect(seen.ends == [true, false])
  }

  private final class Seen: @unchecked Sendable {
    // Proof: the tasks of one world, one after the other.
    var ends: Set<Bool> = []
  }
}

/// A driver that says nothing of the frames that its device has not released at the end, and gives their buffers back.
private final class ForgetfulDriver: NetworkDriver {
  private let inner: ScriptedDriver
  init(_ inner: ScriptedDriver) { self.inner = inner }

  func start(_ request: NetworkDriverRequest) async throws(NetworkDeviceError) -> NetworkDeviceInformation {
    try await inner.start(request)
  }
  func attach(pool: PacketPool) async throws(NetworkDeviceError) { try await inner.attach(pool: pool) }
  func makeQueue(
    index: Int, loop: LoopExecutor, slots: SlotTable, signal: QueueSignal
  ) throws(NetworkDeviceError) -> any QueueDriver {
    ForgetfulQueue(try inner.makeQueue(index: index, loop: loop, slots: slots, signal: signal))
  }
  func activate() async throws(NetworkDeviceError) { try await inner.activate() }
  func reset(timeout: Duration) async throws(NetworkDeviceError) { try await inner.reset(timeout: timeout) }
  func shutDown() async { await inner.shutDown() }
}

private final class ForgetfulQueue: QueueDriver {
  private let inner: any QueueDriver
  init(_ inner: any QueueDriver) { self.inner = inner }

  var transmitCapacity: Int { inner.transmitCapacity }
  var receiveRoom: Int { inner.receiveRoom }
  var statistics: QueueDriverStatistics { inner.statistics }
  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int { try inner.transmit(entries) }
  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    try inner.takeReleased(into: &entries)
  }
  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    try inner.takeReceived(into: &entries)
  }
  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int { try inner.post(slots) }
  func ring() { inner.ring() }
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool { inner.arm(received: received, released: released) }
  func disarm() { inner.disarm() }
  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    inner.drain(transmitted: { posted($0.slot) }, posted: posted)
  }
}
