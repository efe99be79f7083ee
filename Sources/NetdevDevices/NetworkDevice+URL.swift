internal import InProcess
@_exported public import Netdev
internal import VirtioDevice
internal import VirtioNet

extension NetworkDevice {
  /// Opens a device by its URL.
  ///
  /// | URL | device |
  /// |---|---|
  /// | `loopback:` | a wire from each queue pair's transmit ring back to its receive ring |
  /// | `tap:NAME?queues=N` | a TAP interface of this host, one queue of it a pair |
  /// | `host-udp:ADDRESS:PORT` | a UDP port of this host, patched onto the virtual wire; needs no rights |
  ///
  /// Options of all: `queues` (pairs), `queue_size`, `mrg_rxbuf`, `event_idx`, `indirect` (0 or 1: what the driver
  /// accepts), `placement` (`inline` or `own`: the device's engines on the queues' loops or on their own).
  /// `loopback:` also knows `lossless=1`: a frame waits for a receive buffer instead of being dropped.
  ///
  /// - Throws: `invalidConfiguration` for a URL that says nothing sensible, `unsupported` for a device that this build does
  ///   not have, or what keeps the device from being opened.
  public static func open(
    _ url: String, configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    let specification = try DeviceSpecification(url)
    var configuration = configuration
    if let pairs = specification.queuePairs { configuration.queuePairs = pairs }
    if let size = specification.queueSize { configuration.queueSize = size }
    let driver = try specification.makeDriver(pairs: configuration.queuePairs ?? 1)
    return try await open(driver: driver, configuration: configuration)
  }
}

/// What a device URL asks for.
struct DeviceSpecification {
  let kind: Kind
  let queuePairs: Int?
  let queueSize: Int?
  private let options: VirtioNetDriver.Options
  private let placement: InProcessTransport.Placement

  enum Kind: Sendable {
    case loopback(lossless: Bool)
    case tap(name: String)
    case hostUDP(address: String, port: UInt16)
  }

  init(_ text: String) throws(NetworkDeviceError) {
    var url = try DeviceURL(text)
    kind = try Self.kind(&url)
    queuePairs = try url.number("queues", in: 1...256)
    queueSize = try url.number("queue_size", in: 2...32_768)
    var options = VirtioNetDriver.Options()
    if let flag = try url.flag("mrg_rxbuf") { options.mergeableBuffers = flag }
    if let flag = try url.flag("event_idx") { options.eventIndex = flag }
    if let flag = try url.flag("indirect") { options.indirect = flag }
    self.options = options
    placement = try url.word("placement", of: ["inline", "own"]) == "own" ? .ownLoop() : .inline
    try url.finish()
  }

  private static func kind(_ url: inout DeviceURL) throws(NetworkDeviceError) -> Kind {
    switch url.scheme {
    case "loopback":
      guard url.target.isEmpty else { throw url.refuse("the target '\(url.target)'", "a loopback has none") }
      return .loopback(lossless: try url.flag("lossless") ?? false)
    case "tap":
      guard !url.target.isEmpty else { throw url.refuse("no interface", "name one, as in tap:tap0") }
      return .tap(name: url.target)
    case "host-udp":
      return try hostUDP(url)
    case "vhost-user", "vhost-net", "vhost-vdpa", "vfio":
      throw NetworkDeviceError(
        .unsupported, "open '\(url.text)'", offered: "\(url.scheme): devices are not in this build",
        advice: "use loopback:, tap: or host-udp:")
    default:
      throw url.refuse("the scheme '\(url.scheme)'", "use loopback:, tap: or host-udp:")
    }
  }

  private static func hostUDP(_ url: DeviceURL) throws(NetworkDeviceError) -> Kind {
    guard let colon = url.target.lastIndex(of: ":"), colon != url.target.startIndex,
      let port = UInt16(url.target[url.target.index(after: colon)...])
    else { throw url.refuse("'\(url.target)'", "write address and port, as in host-udp:127.0.0.1:7007") }
    return .hostUDP(address: String(url.target[..<colon]), port: port)
  }

  /// The driver of the device: back-end, device, transport, driver.
  func makeDriver(pairs: Int) throws(NetworkDeviceError) -> VirtioNetDriver {
    let device = VirtioNetDevice(backend: try makeBackend(pairs))
    return VirtioNetDriver(transport: InProcessTransport(device: device, placement: placement), options: options)
  }

  private func makeBackend(_ pairs: Int) throws(NetworkDeviceError) -> any NetworkBackend {
    do throws(BackendError) {
      switch kind {
      case .loopback(let lossless): return LoopbackBackend(pairs: pairs, lossless: lossless)
      case .tap(let name): return try TapBackend(name, queues: pairs)
      case .hostUDP(let address, let port): return try HostUDPBackend(address: address, port: port)
      }
    } catch {
      throw NetworkDeviceError(error)
    }
  }
}

extension NetworkDeviceError {
  /// The same failure in the words of the device interface.
  init(_ error: BackendError) {
    let code: Code
    switch error.code {
    case .unavailable: code = .notFound
    case .permission: code = .notPermitted
    case .inUse: code = .busy
    case .invalidConfiguration, .notOffered: code = .invalidConfiguration
    case .closed: code = .closed
    default: code = .system
    }
    self.init(
      code, error.operation, offered: error.errno == 0 ? "" : "error number \(error.errno)", advice: error.advice)
  }
}
