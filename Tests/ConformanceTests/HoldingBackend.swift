import LibeventConcurrency
import NetdevTesting
import PacketFormats
import Synchronization
import TestSupport
import Virtio
import VirtioDevice

/// The loopback of the software device with a valve before it: while it is shut, what the driver transmits stays on its
/// ring. The peer of the virtio driver.
final class HoldingBackend: NetworkBackend, ConformancePeer {
  private let wire: LoopbackBackend
  private let isShut = Atomic<Bool>(false)
  private let bells = Mutex<[Bell]>([])
  /// Frames on the driver's receive rings, by port.
  private let counts = Mutex<[Int]>([])
  /// The engines have loops of their own and go on while the driver's waits.
  private let countsReturned: Bool

  /// A port's bell, and how to get to its loop.
  private struct Bell: @unchecked Sendable {
    // Proof of Sendable: the bell is rung inside `scope.run` only, which is the loop it belongs to.
    let bell: ServiceBell
    let scope: LoopScope
  }

  init(pairs: Int, isInline: Bool) {
    wire = LoopbackBackend(pairs: pairs, lossless: true)
    countsReturned = !isInline
  }

  let description = "loopback with a valve"
  let features = FeatureSet()
  var maximumPairs: Int { wire.maximumPairs }
  let macAddress: MACAddress? = nil
  let mtu: UInt16? = nil

  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
    let inner = try wire.makePort(request)
    let number = counts.withLock { counts in
      counts.append(0)
      return counts.count - 1
    }
    return HoldingPort(inner, number: number, valve: self)
  }

  func close() { bells.withLock { $0 = [] } }

  // MARK: The valve

  fileprivate var holds: Bool { isShut.load(ordering: .acquiring) }

  fileprivate func add(_ bell: ServiceBell) {
    bells.withLock { $0.append(Bell(bell: bell, scope: LoopScope(bell.loop))) }
  }

  /// An engine asks its port again after it has published what the last burst moved: that has been returned by then.
  fileprivate func note(returned: UInt64, by port: Int) { counts.withLock { $0[port] = Int(returned) } }

  var returned: Int? { countsReturned ? counts.withLock { $0.reduce(0, +) } : nil }

  func hold() { isShut.store(true, ordering: .releasing) }

  func letGo() {
    isShut.store(false, ordering: .releasing)
    for bell in bells.withLock({ $0 }) { Task { await bell.scope.run { _ in bell.bell.ring() } } }
  }
}

private final class HoldingPort: BackendPort {
  private let inner: any BackendPort
  private let number: Int
  private let valve: HoldingBackend

  init(_ inner: any BackendPort, number: Int, valve: HoldingBackend) {
    self.inner = inner
    self.number = number
    self.valve = valve
  }

  func start(_ bell: ServiceBell) throws(BackendError) {
    valve.add(bell)
    try inner.start(bell)
  }

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    valve.note(returned: rings.statistics.receivedFrames, by: number)
    return valve.holds ? .transmitBlocked : inner.serve(&rings, budget: budget)
  }

  func setEnabled(_ enabled: Bool) { inner.setEnabled(enabled) }
  func close() { inner.close() }
}
