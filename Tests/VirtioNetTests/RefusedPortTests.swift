import InProcess
import Netdev
import PacketFormats
import Synchronization
import Testing
import Virtio
import VirtioNet

@testable import VirtioDevice

/// A back-end's own word for what it cannot do is the word that `open` throws, wherever it was said.
@Suite(.timeLimit(.minutes(1))) struct RefusedPortTests {
  /// The last one: another pair ends the device before the port is made.
  enum Step: CaseIterable { case prepare, makePort, start, meanwhile }

  /// Refuses one step for want of rights.
  private final class RefusingBackend: NetworkBackend {
    private let step: Step
    let device = Mutex<VirtioNetDevice?>(nil)
    init(at step: Step) { self.step = step }

    let description = "refusing"
    let features = FeatureSet()
    let maximumPairs = 2
    let macAddress: MACAddress? = nil
    let mtu: UInt16? = nil

    fileprivate func refuse(_ step: Step) throws(BackendError) {
      guard step == self.step else { return }
      throw BackendError(.permission, "refusing", errno: 13, advice: "grant CAP_NET_ADMIN")
    }

    func prepare(pair: Int) throws(BackendError) {
      try refuse(.prepare)
      do throws(BackendError) { try refuse(.meanwhile) } catch {
        // What the other one's port reports at its first look.
        device.withLock { $0 }?.note(.lost(error), pair: 1)
      }
    }
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
    for queues in [1, 2] { try await Self.open(queues, step, placement) }
  }

  private static func open(_ queues: Int, _ step: Step, _ placement: InProcessTransport.Placement) async throws {
    let backend = RefusingBackend(at: step)
    let device = VirtioNetDevice(backend: backend)
    backend.device.withLock { $0 = device }
    defer { backend.device.withLock { $0 = nil } }
    let transport = InProcessTransport(device: device, placement: placement)
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = queues
    do {
      _ = try await NetworkDevice.open(driver: VirtioNetDriver(transport: transport), configuration: configuration)
      Issue.record("it opened")
    } catch {
      #expect(error.code == .notPermitted)
      #expect(error.operation == "refusing")
      #expect(error.offered == "EACCES (13): Permission denied")
      #expect(error.advice == "grant CAP_NET_ADMIN")
    }
  }
}
