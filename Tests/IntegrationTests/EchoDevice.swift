import InProcess
import Netdev
import PacketFormats
import Responder
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// The echo server's heart on a TAP interface in a namespace of its own, for one test.
struct TapEcho {
  let namespace: NamespaceThread
  let device: NetworkDevice
  let backend: TapBackend
  let server: Task<Void, any Error>
  static let address = "10.9.0.2"
  static let ipv6Address = "fd00:9::2"

  /// Makes the namespace, the interface `tap0` with address 10.9.0.1/24, and a server that answers for 10.9.0.2; with IPv6
  /// also with fd00:9::1/64, and for fd00:9::2.
  static func start(
    queues: Int = 1, placement: InProcessTransport.Placement = .inline, observer: (any FrameObserver)? = nil,
    cpus: [Int] = [], ipv6: Bool = false
  ) async throws -> TapEcho {
    let namespace = NamespaceThread()
    // The kernel's own link-local address is good at once, not after a second of asking whether somebody has it.
    if ipv6 { try await namespace.shell("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad") }
    let backend = try await namespace.run { try TapBackend("tap0", queues: queues, observer: observer) }
    if ipv6 {
      try await namespace.shell("ip -6 addr add fd00:9::1/64 dev tap0 nodad")
    } else {
      // Without IPv6 the kernel sends nothing of its own accord.
      try await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/tap0/disable_ipv6")
    }
    try await namespace.shell("ip addr add 10.9.0.1/24 dev tap0")
    // As devices that are opened by a URL.
    var model = VirtioNetDevice.Configuration()
    model.pairSwitching = .controlQueue
    let transport = InProcessTransport(
      device: VirtioNetDevice(backend: backend, configuration: model), placement: placement)
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = queues
    configuration.cpus = cpus
    let device = try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: transport), configuration: configuration)
    let server = try echo(on: device, address: "10.9.0.2/24", ipv6Addresses: ipv6 ? ["fd00:9::2/64"] : nil)
    return TapEcho(namespace: namespace, device: device, backend: backend, server: server)
  }

  /// Ends the server and the device; the interface is gone then.
  func stop() async throws {
    try await device.close()
    try? await server.value
  }
}

/// The station that the device is.
func macAddress(of device: NetworkDevice) throws -> MACAddress {
  try #require(device.information.hardwareAddress)
}

/// Answers on every queue of a device until it ends: the loop that the README prints.
func echo(
  on device: NetworkDevice, address: String, ipv6Addresses: [String]? = nil
) throws -> Task<Void, any Error> {
  let network = try #require(IPv4Network(address))
  let template = try Responder(
    macAddress: try macAddress(of: device), addresses: [network],
    ipv6Addresses: ipv6Addresses?.map { text in try #require(IPv6Network(text)) })
  return Task {
    try await device.run { queue in
      var responder = template
      for await var packet in queue.packets {
        guard responder.answer(&packet) else { continue }
        try await queue.send(packet)
      }
    }
  }
}

/// Which descriptor of the TAP device each flow was read from and written to, as the device saw it.
final class FlowRecord: FrameObserver {
  struct Counts: Sendable {
    /// By UDP port of the kernel's side: frames on each queue, read and written.
    var read: [UInt16: [Int]] = [:]
    var written: [UInt16: [Int]] = [:]
    var frames: [Int]
  }

  private let counts: Mutex<Counts>
  let queues: Int

  init(queues: Int) {
    self.queues = queues
    counts = Mutex(Counts(frames: Array(repeating: 0, count: queues)))
  }

  func observe(queue: Int, direction: FrameDirection, length: Int, prefix: RawSpan) {
    // UDP over IPv4 only: EtherType 0800, protocol 17.
    guard prefix.byteCount >= 42, byte(prefix, 12) == 8, byte(prefix, 13) == 0, byte(prefix, 23) == 17 else { return }
    // Read by the device means sent by the kernel: its port is the source.
    let at = direction == .received ? 34 : 36
    let port = UInt16(byte(prefix, at)) << 8 | UInt16(byte(prefix, at + 1))
    counts.withLock { counts in
      counts.frames[queue] += 1
      if direction == .received {
        counts.read[port, default: Array(repeating: 0, count: queues)][queue] += 1
      } else {
        counts.written[port, default: Array(repeating: 0, count: queues)][queue] += 1
      }
    }
  }

  private func byte(_ bytes: RawSpan, _ offset: Int) -> UInt8 {
    unsafe bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  var snapshot: Counts { counts.withLock { $0 } }
}
