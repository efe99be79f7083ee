import LibeventConcurrency
import NetdevTesting
import PacketFormats
import Synchronization
import Virtio
import VirtioDevice

/// The loopback of the software device with a valve before it: while it is shut, what the driver transmits stays on its
/// ring. The peer of the virtio driver.
final class HoldingBackend: NetworkBackend, ConformancePeer {
  private let wire: LoopbackBackend
  private let isShut = Atomic<Bool>(false)
  private let bells = Mutex<[Bell]>([])

  /// A port's bell, and how to get to its loop.
  private struct Bell: @unchecked Sendable {
    // Proof of Sendable: the bell is rung inside `scope.run` only, which is the loop it belongs to.
    let bell: ServiceBell
    let scope: LoopScope
  }

  init(pairs: Int) { wire = LoopbackBackend(pairs: pairs, lossless: true) }

  let description = "loopback with a valve"
  let features = FeatureSet()
  var maximumPairs: Int { wire.maximumPairs }
  let macAddress: MACAddress? = nil
  let mtu: UInt16? = nil

  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
    HoldingPort(try wire.makePort(request), valve: self)
  }

  func close() { bells.withLock { $0 = [] } }

  // MARK: The valve

  fileprivate var holds: Bool { isShut.load(ordering: .acquiring) }

  fileprivate func add(_ bell: ServiceBell) {
    bells.withLock { $0.append(Bell(bell: bell, scope: LoopScope(bell.loop))) }
  }

  func hold() { isShut.store(true, ordering: .releasing) }

  func letGo() {
    isShut.store(false, ordering: .releasing)
    for bell in bells.withLock({ $0 }) { Task { await bell.scope.run { _ in bell.bell.ring() } } }
  }
}

private final class HoldingPort: BackendPort {
  private let inner: any BackendPort
  private let valve: HoldingBackend

  init(_ inner: any BackendPort, valve: HoldingBackend) {
    self.inner = inner
    self.valve = valve
  }

  func start(_ bell: ServiceBell) throws(BackendError) {
    valve.add(bell)
    try inner.start(bell)
  }

  func serve(_ rings: inout EngineRings, budget: Int) -> ServeResult {
    valve.holds ? .transmitBlocked : inner.serve(&rings, budget: budget)
  }

  func setEnabled(_ enabled: Bool) { inner.setEnabled(enabled) }
  func close() { inner.close() }
}
