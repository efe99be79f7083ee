import InProcess
import Netdev
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// Where the engines of a device of this process run that has a control virtqueue, and in which format its rings are.
struct ControlledLoopback: Sendable, CustomTestStringConvertible {
  var placement: InProcessTransport.Placement
  var rings: RingFormat
  var testDescription: String { "\(placement) \(rings)" }

  static let all = [InProcessTransport.Placement.inline, .ownLoop()].flatMap { placement in
    [RingFormat.split, .packed].map { ControlledLoopback(placement: placement, rings: $0) }
  }

  /// The device as its program has it, and its model.
  func open(
    pairs: Int = 1, lossless: Bool = false, queueSize: Int? = nil, vlanFilter: Bool = false
  ) async throws -> (device: NetworkDevice, model: VirtioNetDevice) {
    var configuration = VirtioNetDevice.Configuration()
    configuration.pairSwitching = .controlQueue
    let model = VirtioNetDevice(
      backend: LoopbackBackend(pairs: pairs, lossless: lossless), configuration: configuration)
    var options = VirtioNetDriver.Options()
    options.packedRings = rings == .packed
    options.vlanFilter = vlanFilter
    var settings = NetworkDevice.Configuration()
    settings.queuePairs = pairs
    settings.queueSize = queueSize
    let driver = VirtioNetDriver(transport: InProcessTransport(device: model, placement: placement), options: options)
    return (try await NetworkDevice.open(driver: driver, configuration: settings), model)
  }
}
