internal import LibeventConcurrency
public import PacketFormats
import Synchronization
public import Virtio

/// A UDP port of this machine, patched onto the device's wire: no rights are needed, and no interface.
///
/// The port may be of either family, or of both (`::`); bound to no address, answers come from the one that was asked.
/// Each host that sends a datagram to the port becomes a host behind a gateway: the device sees a UDP packet from an
/// address of its own, with the sender's port, at the device's address and port; what it answers to that address and port
/// goes back to the sender. The gateway answers ARP for its own address. Everything else is dropped, by reason.
///
/// Carried are datagrams of 0 to 1472 bytes, one queue pair. The number of senders is bounded; idle ones are forgotten.
public final class HostUDPBackend: NetworkBackend {
  /// The addresses on the virtual wire, and the bounds.
  public struct Configuration: Sendable {
    /// The gateway's address on the device's link.
    public var gateway = IPv4Address(10, 0, 2, 2)
    /// The device's address: datagrams go there, and answers must come from there.
    public var device = IPv4Address(10, 0, 2, 15)
    /// The device's port; nil for the number that the host's port has.
    public var devicePort: UInt16?
    /// The first sender has the address after this one, and so on.
    public var senders = IPv4Address(10, 64, 0, 0)
    /// Senders known at a time, 1 to 65534.
    public var maximumSenders = 4096
    /// A sender with which nothing has passed for so long is forgotten.
    public var senderExpiry = Duration.seconds(60)
    /// When all places are taken, a new sender takes that of one that was silent for longer than this, or is dropped.
    public var minimumIdle = Duration.seconds(1)

    /// The defaults.
    public init() {}
  }

  /// The address of this machine that was bound.
  public let address: HostAddress
  /// The port that was bound: the one asked for, or the one that the kernel chose.
  public let port: UInt16
  /// What was configured.
  public let configuration: Configuration
  /// None.
  public let features = FeatureSet()
  /// One: a socket has one queue.
  public let maximumPairs = 1
  /// None: the device chooses.
  public let macAddress: MACAddress? = nil
  /// 1500: an IP packet of 1472 bytes of payload.
  public let mtu: UInt16? = 1500
  /// False.
  public let mayBlock = false

  private let socket: Mutex<HostSocket?>
  private let gatewayMAC: MACAddress

  /// Binds the port.
  ///
  /// - Parameters:
  ///   - address: an address of this machine: `127.0.0.1` or `::1` for programs of this machine only, `0.0.0.0` for everybody
  ///     who can reach it, `::` over IPv6 too.
  ///   - port: 0 takes any free one.
  ///   - configuration: the addresses on the wire.
  /// - Throws: `BackendError` with advice: the port is in use, below 1024 without the right, or an address is none.
  public init(
    address: String = "127.0.0.1", port: UInt16 = 0, configuration: Configuration = Configuration()
  ) throws(BackendError) {
    guard let parsed = HostAddress(address) else {
      throw BackendError(
        .invalidConfiguration, "opening a UDP port of this machine",
        advice: "\(address) is no address: write it as 127.0.0.1 or ::1")
    }
    try Self.check(configuration)
    let socket = try HostSocket.open(address: parsed, port: port, receiveBytes: 4 << 20)
    self.address = parsed
    self.port = socket.port
    self.configuration = configuration
    self.socket = Mutex(socket)
    gatewayMAC = MACAddress.randomLocallyAdministered()
  }

  private static func check(_ configuration: Configuration) throws(BackendError) {
    func refuse(_ advice: String) -> BackendError {
      BackendError(.invalidConfiguration, "laying out the addresses behind a UDP port", advice: advice)
    }
    for address in [configuration.gateway, configuration.device] where !address.isHost {
      throw refuse("\(address) is no address of a host")
    }
    guard configuration.gateway != configuration.device else {
      throw refuse("gateway and device need different addresses")
    }
    guard configuration.maximumSenders >= 1, configuration.maximumSenders <= 65534 else {
      throw refuse("the number of senders is from 1 to 65534, not \(configuration.maximumSenders)")
    }
    let first = configuration.senders.rawValue
    let (last, overflow) = first.addingReportingOverflow(UInt32(configuration.maximumSenders))
    guard !overflow, configuration.senders.isHost, IPv4Address(rawValue: last).isHost else {
      throw refuse("from \(configuration.senders) on there are no \(configuration.maximumSenders) addresses of hosts")
    }
    for address in [configuration.gateway, configuration.device] where (first...last).contains(address.rawValue) {
      throw refuse("\(address) is among the addresses of senders, which start at \(configuration.senders)")
    }
  }

  /// "host-udp 127.0.0.1:7777", "host-udp [::1]:7777".
  public var description: String { "host-udp \(address.description(port: port))" }

  /// Makes the port of the only pair.
  public func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
    let operation = "starting queue pair \(request.pair) of \(description)"
    guard request.pair == 0 else { throw BackendError(.notOffered, operation, advice: "it has one queue pair") }
    guard let socket = socket.withLock({ $0 }) else {
      throw BackendError(.closed, operation, advice: "open the device again")
    }
    let addresses = UDPGateway.Addresses(
      gatewayMAC: gatewayMAC, gateway: configuration.gateway,
      deviceMAC: request.macAddress, device: configuration.device,
      devicePort: configuration.devicePort ?? port, firstSender: configuration.senders)
    let senders = SenderTable(
      capacity: configuration.maximumSenders, expiry: configuration.senderExpiry.nanosecondsRoundedUp,
      minimumIdle: configuration.minimumIdle.nanosecondsRoundedUp)
    return HostUDPPort(socket: socket, gateway: UDPGateway(addresses: addresses, senders: senders))
  }

  /// Closes the socket; one that a port still serves closes with the port.
  public func close() {
    let closed = socket.withLock { socket in
      let last = socket
      socket = nil
      return last
    }
    withExtendedLifetime(closed) {}
  }
}
