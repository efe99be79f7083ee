internal import InProcess
internal import LibeventConcurrency
internal import Logging
@_exported public import Netdev
internal import PacketSocket
internal import VhostUser
internal import Virtio
internal import VirtioDevice
internal import VirtioNet

extension NetworkDevice {
  /// Opens a device by its URL.
  ///
  /// | URL | device |
  /// |---|---|
  /// | `loopback:` | a wire from each queue pair's transmit ring back to its receive ring |
  /// | `tap:NAME?queues=N` | a TAP interface of this host, one queue of it a pair |
  /// | `tun:NAME?queues=N` | a TUN interface of this host, of layer 3: Ethernet is made and taken off by the device |
  /// | `packet:NAME?queues=N` | an interface of this host, whose own stack sees the same frames; `promiscuous=1` |
  /// | `host-udp:ADDRESS:PORT` | a UDP port of this host, `[::]:PORT` with IPv6, patched onto the virtual wire; needs no rights |
  /// | `vhost-user:PATH?server=1` | a port of a switch, behind its socket |
  ///
  /// Schemes and options are written in small letters. Options of all: `queues` (pairs) and `queue_size`; of all but `packet:`,
  /// which is no virtio device, `mrg_rxbuf`, `event_idx`, `indirect` (0 or 1: what the driver accepts), `packed` and `in_order`
  /// (1: packed rings, and buffers used in order; a device that does not offer it is refused). `loopback:`, `tap:`, `tun:` and
  /// `host-udp:` also know `placement`
  /// (`inline` or `own`: the device's engines on the queues' loops or on their own) and `vlan_filter` (1: frames of VLANs that
  /// the device was not told of are not received, outside promiscuous mode), and `loopback:` knows `lossless=1`: a
  /// frame waits for a receive buffer instead of being dropped. `packet:` knows `promiscuous=1`: frames for other stations
  /// are received too.
  ///
  /// `vhost-user:` knows `server=1` (the switch connects to us), `timeout` (seconds it may take for one answer), `mac` (the
  /// address to use), `mtu` (to tell the switch) and `kicks=0` (the switch polls the rings). A switch that goes away is
  /// awaited, and frames that it had not taken are sent again; `reconnect=0` lets the device break instead, `in_flight=fail`
  /// lets the sends of such frames fail. Two options concern the beginning only:
  ///
  /// - `connect_timeout`: with `server=1`, the seconds that opening waits for the switch to connect. Without `server=1` there
  ///   is no wait: a socket on which nobody listens is `notFound` at once.
  /// - `serve_timeout`: the seconds that the first frames sent by a queue pair may stay with the switch. If none has come back
  ///   by then the switch does not serve that pair, which is `unsupported`. The first pair, which every switch has, is not
  ///   watched, and the others only once: a switch that stays connected and stops serving later is no error, and sends wait
  ///   for it.
  ///
  /// Interfaces are those of the calling thread's network namespace. Called on a loop, as in a queue's body, it does what may
  /// block on another thread; elsewhere, as on the main actor, `tap:`, `tun:` and `packet:` hold the calling thread for as
  /// long as somebody holds the kernel's lock of links. A cancelled call on a loop returns at once; elsewhere it is cancelled when it
  /// no longer holds its thread.
  ///
  /// - Throws: `invalidConfiguration` for a URL that says nothing sensible, `unsupported` for a device that this build does
  ///   not have, or what keeps the device from being opened.
  public static func open(
    _ url: String, configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> NetworkDevice {
    let devices = try await open([url], configuration: configuration)
    return devices[0]
  }

  /// Opens several devices by their URLs, on one pool and the same loops: queue i of each lives on loop i, and forwarding
  /// between them copies nothing and stays on its loop.
  ///
  /// - Returns: the devices, in the order of their URLs.
  /// - Throws: as for one URL; when one cannot be opened, none is.
  public static func open(
    _ urls: [String], configuration: Configuration = Configuration()
  ) async throws(NetworkDeviceError) -> [NetworkDevice] {
    // All are read before anything is made.
    var specifications: [DeviceSpecification] = []
    for url in urls { specifications.append(try DeviceSpecification(url)) }
    let making = { @Sendable [specifications] in DriversMade(specifications, configuration) }
    // Elsewhere than on a loop there is no other way: who waits for another thread wakes the runtime's pool of threads, which then
    // wakes up every second.
    let mayHoldLoop = BlockingCalls.wouldHoldLoop && specifications.contains { $0.mayBlock }
    let aside = if mayHoldLoop { await BlockingCalls.aside(making) } else { Aside.made(making()) }
    HopBack.keep()
    let made: DriversMade
    switch aside {
    case .made(let drivers): made = drivers
    case .cancelled: throw .openCancelled
    case .refused(let abandoned):
      throw NetworkDeviceError(
        .timedOut, "open", offered: "\(abandoned) openings that were cancelled are still being answered",
        advice: "look for who holds the system's lock of links")
    }
    guard let refusal = made.refusal else { return try await open(made.openings, configuration) }
    for opening in made.openings { await opening.driver.shutDown() }
    throw refusal.broughtBack
  }
}

/// The drivers of several devices, up to the first that cannot be had.
private struct DriversMade: Sendable {
  private(set) var openings: [Opening] = []
  private(set) var refusal: NetworkDeviceError?

  init(_ specifications: [DeviceSpecification], _ configuration: NetworkDevice.Configuration) {
    do throws(NetworkDeviceError) {
      for specification in specifications {
        let pairs = specification.queuePairs ?? configuration.queuePairs
        let request = NetworkDriverRequest(
          queuePairs: pairs, queueSize: specification.queueSize ?? configuration.queueSize)
        let driver = try specification.makeDriver(pairs: pairs ?? 1, logger: configuration.logger)
        openings.append(Opening(driver: driver, request: request))
      }
    } catch {
      refusal = error
    }
  }
}

/// What a device URL asks for.
struct DeviceSpecification: Sendable {
  let kind: Kind
  let queuePairs: Int?
  let queueSize: Int?
  private let options: VirtioNetDriver.Options
  private let placement: InProcessTransport.Placement

  enum Kind: Sendable {
    case loopback(lossless: Bool)
    case tap(name: String)
    case tun(name: String)
    case packet(interface: String, PacketDriver.Options)
    case hostUDP(address: String, port: UInt16)
    case vhostUser(VhostUserTransport.Options)

    /// Whether a virtio driver drives it.
    var isVirtio: Bool { if case .packet = self { false } else { true } }

    /// Whether the device's side is in this process too.
    var isInProcess: Bool {
      switch self {
      case .loopback, .tap, .tun, .hostUDP: true
      case .packet, .vhostUser: false
      }
    }
  }

  /// Whether making its driver may wait for the kernel's lock of links, which anybody on the machine may hold.
  var mayBlock: Bool {
    switch kind {
    case .tap, .tun, .packet: true
    case .loopback, .hostUDP, .vhostUser: false
    }
  }

  init(_ text: String) throws(NetworkDeviceError) {
    var url = try DeviceURL(text)
    kind = try Self.kind(&url)
    queuePairs = try url.number("queues", in: 1...256)
    queueSize = try url.number("queue_size", in: 2...32_768)
    var options = VirtioNetDriver.Options()
    var placement = InProcessTransport.Placement.inline
    if kind.isVirtio {
      if let flag = try url.flag("mrg_rxbuf") { options.mergeableBuffers = flag }
      if let flag = try url.flag("event_idx") { options.eventIndex = flag }
      if let flag = try url.flag("indirect") { options.indirect = flag }
      if let flag = try url.flag("packed") { options.packedRings = flag }
      if let flag = try url.flag("in_order") { options.inOrder = flag }
    }
    // By the control virtqueue, which only these have.
    if kind.isInProcess, let flag = try url.flag("vlan_filter") { options.vlanFilter = flag }
    if kind.isInProcess, try url.word("placement", of: ["inline", "own"]) == "own" { placement = .ownLoop() }
    self.options = options
    self.placement = placement
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
    case "tun":
      guard !url.target.isEmpty else { throw url.refuse("no interface", "name one, as in tun:tun0") }
      return .tun(name: url.target)
    case "packet":
      guard !url.target.isEmpty else { throw url.refuse("no interface", "name one, as in packet:eth0") }
      var options = PacketDriver.Options()
      options.isPromiscuous = try url.flag("promiscuous") ?? false
      return .packet(interface: url.target, options)
    case "host-udp":
      return try hostUDP(url)
    case "vhost-user":
      return try vhostUser(&url)
    case "vhost-net", "vhost-vdpa", "vfio":
      throw NetworkDeviceError(
        .unsupported, "open '\(url.text)'", offered: "\(url.scheme): devices are not in this build",
        advice: "use \(DeviceURL.schemes)")
    default:
      if let advice = DeviceURL.advice(forInterface: url.scheme) {
        throw url.refuse("the scheme '\(url.scheme)'", advice)
      }
      throw url.refuse("the scheme '\(url.scheme)'", "use \(DeviceURL.schemes)")
    }
  }

  private static func hostUDP(_ url: DeviceURL) throws(NetworkDeviceError) -> Kind {
    guard let colon = url.target.lastIndex(of: ":"), colon != url.target.startIndex,
      let port = UInt16(url.target[url.target.index(after: colon)...])
    else { throw url.refuse("'\(url.target)'", "write address and port, as in host-udp:127.0.0.1:7007") }
    let address = url.target[..<colon]
    // An IPv6 address has colons of its own (RFC 3986 §3.2.2).
    guard address.contains(":") else { return .hostUDP(address: String(address), port: port) }
    guard address.hasPrefix("["), address.hasSuffix("]") else {
      throw url.refuse("'\(url.target)'", "write an IPv6 address in brackets, as in host-udp:[::1]:7007")
    }
    return .hostUDP(address: String(address.dropFirst().dropLast()), port: port)
  }

  private static func vhostUser(_ url: inout DeviceURL) throws(NetworkDeviceError) -> Kind {
    guard !url.target.isEmpty, url.target.utf8.count <= 107 else {
      throw url.refuse(
        "a path of \(url.target.utf8.count) bytes", "name the socket in at most 107, as in vhost-user:/run/switch/port0"
      )
    }
    var options = VhostUserTransport.Options(path: url.target)
    if try url.flag("server") == true { options.role = .listen }
    if let seconds = try url.number("connect_timeout", in: 1...86_400) { options.connectTimeout = .seconds(seconds) }
    if try url.flag("reconnect") == false { options.recovery = nil }
    if try url.word("in_flight", of: ["resubmit", "fail"]) == "fail" { options.recovery?.inFlight = .fail }
    if let seconds = try url.number("timeout", in: 1...3600) { options.requestTimeout = .seconds(seconds) }
    if let seconds = try url.number("serve_timeout", in: 1...3600) { options.serviceTimeout = .seconds(seconds) }
    options.mtu = try url.number("mtu", in: 68...9216)
    if let kicks = try url.flag("kicks") { options.kicks = kicks }
    options.hardwareAddress = try url.hardwareAddress("mac")
    return .vhostUser(options)
  }

  /// The driver of the device: for those of this process also back-end and device.
  func makeDriver(pairs: Int, logger: Logger) throws(NetworkDeviceError) -> any NetworkDriver {
    switch kind {
    case .packet(let interface, let options):
      return try PacketDriver(interface, queues: pairs, options: options, logger: logger)
    case .loopback(let lossless):
      return try inProcess(logger) { LoopbackBackend(pairs: pairs, lossless: lossless) }
    case .tap(let name):
      return try inProcess(logger) { () throws(BackendError) in try TapBackend(name, queues: pairs) }
    case .tun(let name):
      return try inProcess(logger) { () throws(BackendError) in try TapBackend(name, queues: pairs, isLayer3: true) }
    case .hostUDP(let address, let port):
      return try inProcess(logger) { () throws(BackendError) in try HostUDPBackend(address: address, port: port) }
    case .vhostUser(var options):
      options.logger = logger
      return virtio(try VhostUserTransport(options), logger)
    }
  }

  private func virtio(_ transport: any VirtioTransport, _ logger: Logger) -> VirtioNetDriver {
    VirtioNetDriver(transport: transport, options: options, logger: logger)
  }

  private func inProcess(
    _ logger: Logger, _ makeBackend: () throws(BackendError) -> any NetworkBackend
  ) throws(NetworkDeviceError) -> VirtioNetDriver {
    do throws(BackendError) {
      let backend = try makeBackend()
      var configuration = VirtioNetDevice.Configuration()
      configuration.onEvent = logged(backend, logger)
      configuration.pairSwitching = .controlQueue
      configuration.loopReports = { LoopReports(logger, loop: $0) }
      let device = VirtioNetDevice(backend: backend, configuration: configuration)
      return virtio(InProcessTransport(device: device, placement: placement), logger)
    } catch {
      throw NetworkDeviceError(error)
    }
  }
}
