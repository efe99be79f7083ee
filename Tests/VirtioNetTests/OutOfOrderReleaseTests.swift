import InProcess
import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// Invariant 2 through real rings: a software device on its own thread that gives back one frame out of the middle.
@Suite(.timeLimit(.minutes(2))) struct OutOfOrderReleaseTests {
  @Test(arguments: [true, false], [true, false])
  func `a full ring, one buffer released: its send goes on, alone, and one sender is let in`(
    eventIndex: Bool, packedRings: Bool
  ) async throws {
    let backend = PickingBackend()
    let transport = InProcessTransport(device: VirtioNetDevice(backend: backend), placement: .ownLoop())
    var options = VirtioNetDriver.Options()
    options.eventIndex = eventIndex
    options.packedRings = packedRings
    var settings = NetworkDevice.Configuration()
    settings.queueSize = 16
    let device = try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: transport, options: options), configuration: settings)
    let queue = device.queues[0]
    let outcomes = (0..<20).map { _ in Outcome() }
    for (number, outcome) in outcomes.enumerated() {
      let packet = try Packet(copying: numbered(number), in: device.pool)
      Task { await outcome.record { try await queue.send(packet) } }
      // One after the other, so that the first sixteen are those in the ring.
      try await eventually("sender \(number) is let in or waits") {
        let statistics = queue.statistics
        return Int(statistics.packetsSubmitted + statistics.ringFull) == number + 1
      }
    }
    #expect(queue.statistics.ringFull == 4)
    await turn(queue, times: 1000)
    #expect(outcomes.allSatisfy { $0.finished == 0 })

    try await eventually("the device has started") { await backend.giveBack(at: 5) }
    try await eventually("the send of the released buffer returns") { outcomes[5].finished == 1 }
    try await eventually("the sender that has waited longest is let in") { queue.statistics.packetsSubmitted >= 17 }
    #expect(backend.loop != nil && backend.loop != queue.loop.identity)
    await turn(queue, times: 1000)
    #expect(outcomes.map { $0.finished } == (0..<20).map { $0 == 5 ? 1 : 0 })
    #expect(queue.statistics.packetsReleased == 1)

    backend.giveBackAll()
    try await eventually("the device goes on") { await backend.giveBack(at: 0) }
    try await eventually("every send returns") { outcomes.allSatisfy { $0.finished == 1 } }
    #expect(outcomes.allSatisfy { $0.errors.isEmpty })
    #expect(backend.numbers == [5] + (0..<5) + (6..<20))
    try await device.close()
    #expect(device.pool.free == device.pool.configuration.slots)
  }
}

/// A device that gives back the frames that a test picks.
private final class PickingBackend: NetworkBackend {
  let description = "picker"
  let features = FeatureSet()
  let maximumPairs = 1
  let macAddress: MACAddress? = nil
  let mtu: UInt16? = nil

  private struct State {
    var bell: Bell?
    var picks: [Int] = []
    var isOpen = false
    var numbers: [Int] = []
  }

  /// A port's bell, and how to get to its loop.
  private struct Bell: @unchecked Sendable {
    // Proof of Sendable: the bell is rung inside `scope.run` only, which is the loop it belongs to.
    let bell: ServiceBell
    let scope: LoopScope
  }

  private let state = Mutex(State())

  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort { PickingPort(self) }
  func close() {}

  /// The loop of the device.
  var loop: UInt? { state.withLock { $0.bell?.bell.loop.identity } }
  /// The numbers of the frames given back, in order.
  var numbers: [Int] { state.withLock { $0.numbers } }

  /// Has the frame at a position among those that the device holds given back; false when the device has not started.
  func giveBack(at position: Int) async -> Bool {
    let bell = state.withLock { state in
      if state.bell != nil { state.picks.append(position) }
      return state.bell
    }
    guard let bell else { return false }
    await bell.scope.run { _ in bell.bell.ring() }
    return true
  }

  /// Has every frame given back from the next service on.
  func giveBackAll() { state.withLock { $0.isOpen = true } }

  fileprivate func start(_ bell: ServiceBell) {
    state.withLock { $0.bell = Bell(bell: bell, scope: LoopScope(bell.loop)) }
  }

  fileprivate var isOpen: Bool { state.withLock { $0.isOpen } }

  fileprivate func nextPick() -> Int? {
    state.withLock { state in
      if state.isOpen { return 0 }
      return state.picks.isEmpty ? nil : state.picks.removeFirst()
    }
  }

  fileprivate func note(_ number: Int) { state.withLock { $0.numbers.append(number) } }
}

private final class PickingPort: BackendPort {
  /// A frame taken from the ring and not given back: what remains true of its chain beyond the burst.
  private struct Held {
    let chain: DescriptorChain
    let number: Int
    let length: Int
  }

  private let backend: PickingBackend
  private var held: [Held] = []

  init(_ backend: PickingBackend) { self.backend = backend }

  func start(_ bell: ServiceBell) { backend.start(bell) }
  func setEnabled(_ enabled: Bool) {}
  func close() {}

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    var budget = budget
    rings.beginTransmit()
    while let position = backend.nextPick() {
      // The engine interrupts when a burst has taken something: no more is taken than is needed for the pick.
      while held.count <= position, let chain = rings.nextFrame(&budget) {
        var bytes = [UInt8](repeating: 0, count: 8)
        _ = unsafe bytes.withUnsafeMutableBytes { unsafe chain.copyBytes(from: rings.format.headerLength, into: $0) }
        held.append(
          Held(
            chain: chain, number: bytes.reversed().reduce(0) { $0 << 8 | Int($1) },
            length: chain.readableLength - rings.format.headerLength))
      }
      guard held.indices.contains(position) else { break }
      let frame = held.remove(at: position)
      rings.release(frame.chain, frameLength: frame.length)
      backend.note(frame.number)
    }
    // With an empty hand and everything to be given back, kicks tell of more; else the bell does.
    return backend.isOpen && held.isEmpty ? [] : .transmitBlocked
  }
}
