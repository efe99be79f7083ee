import InProcess
import Netdev
import PacketFormats
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// A back-end's own word for what it cannot do is the word that `open` throws, wherever it was said.
@Suite(.timeLimit(.minutes(1))) struct RefusedPortTests {
  enum Step: CaseIterable { case prepare, makePort, start }

  /// Refuses one step for want of rights.
  private final class RefusingBackend: NetworkBackend {
    private let step: Step
    init(at step: Step) { self.step = step }

    let description = "refusing"
    let features = FeatureSet()
    let maximumPairs = 1
    let macAddress: MACAddress? = nil
    let mtu: UInt16? = nil

    fileprivate func refuse(_ step: Step) throws(BackendError) {
      guard step == self.step else { return }
      throw BackendError(.permission, "refusing", errno: 13, advice: "grant CAP_NET_ADMIN")
    }

    func prepare(pair: Int) throws(BackendError) { try refuse(.prepare) }
    func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
      try refuse(.makePort)
      return RefusingPort(self)
    }
    func close() {}
  }

  private final class RefusingPort: BackendPort {
    private let backend: RefusingBackend
    init(_ backend: RefusingBackend) { self.backend = backend }

    func start(_ bell: ServiceBell) throws(BackendError) { try backend.refuse(.start) }
    func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult { [] }
    func setEnabled(_ enabled: Bool) {}
    func close() {}
  }

  @Test(arguments: Step.allCases, [InProcessTransport.Placement.inline, .ownLoop()])
  func `open throws what the back-end has thrown`(step: Step, placement: InProcessTransport.Placement) async throws {
    let transport = InProcessTransport(
      device: VirtioNetDevice(backend: RefusingBackend(at: step)), placement: placement)
    do {
      _ = try await NetworkDevice.open(driver: VirtioNetDriver(transport: transport))
      Issue.record("it opened")
    } catch {
      #expect(error.code == .notPermitted)
      #expect(error.operation == "refusing")
      #expect(error.offered == "EACCES (13): Permission denied")
      #expect(error.advice == "grant CAP_NET_ADMIN")
    }
  }
}
