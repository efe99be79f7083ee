import BenchmarkSupport
import CStoreTwin
import ChildProcesses
import Glibc
import NetdevDevices
import PacketFormats
import Responder
import StoreService

/// One way to serve the store to a client on kernel sockets.
enum Contender: String, CaseIterable {
  /// The kernel's own sockets, in a second namespace at the other end of a wire.
  case sockets
  /// The example, on a TAP interface.
  case tap
  /// The example, at the other end of such a wire, by packet sockets.
  case packet
  /// The example, behind a vhost-user switch that has a TAP interface of its own for the client.
  case vhostUser = "vhost-user"

  var title: String {
    switch self {
    case .sockets: "recvmmsg and sendmmsg, over veth"
    case .tap: "KeyValueStore tap:"
    case .packet: "KeyValueStore packet:, over veth"
    case .vhostUser: "KeyValueStore vhost-user:, testpmd"
    }
  }

  /// The client's end of the wire, and who answers at the other.
  static let interface = "kv0"
  static let client = "10.8.0.1/24"
  static let server = "10.8.0.2/24"

  /// Latency, then rate, on a wire made for it.
  func measure(_ options: Options) throws -> Measurement {
    switch self {
    case .sockets: try measureSockets(options)
    case .tap: try measureDevice("tap:\(Self.interface)", options)
    case .packet: try measurePackets(options)
    case .vhostUser: try measureSwitch(options)
    }
  }

  private func measureSockets(_ options: Options) throws -> Measurement {
    let store = Unmanaged.passRetained(SocketStore())
    defer { store.release() }
    let server = store_start(options.serverCPU, answerRequest, store.toOpaque())
    guard let server else { throw Stop("starting the server: \(String(cString: strerror(errno)))", status: EX_OSERR) }
    defer { store_stop(server) }
    let namespace = "/proc/\(getpid())/task/\(store_thread(server))/ns/net"
    try shell(
      """
      ip link add \(Self.interface) type veth peer name kv1 && ip link set kv1 netns \(namespace) && \
      nsenter --net=\(namespace) sh -c 'ip link set lo up && ip addr add \(Self.server) dev kv1 && ip link set kv1 up'
      """)
    defer { try? shell("ip link del \(Self.interface)") }
    return try ask(options)
  }

  /// The kernel has no address at this end, so it answers to nothing.
  private func measurePackets(_ options: Options) throws -> Measurement {
    try shell(
      "ip link add \(Self.interface) type veth peer name kv1 && ip link set \(Self.interface) up && ip link set kv1 up")
    defer { try? shell("ip link del \(Self.interface)") }
    return try measureDevice("packet:kv1", options)
  }

  /// A testpmd between the device and the client's interface.
  private func measureSwitch(_ options: Options) throws -> Measurement {
    let socket = "/tmp/netdev-store-\(getpid()).sock"
    let place = options.switchCPU.map { "\($0)" } ?? "(\(options.clientCPU),\(options.serverCPU))"
    let testpmd = try ChildProcess([
      "stdbuf", "-oL", "dpdk-testpmd", "--no-pci", "--no-huge", "-m", "256", "--no-telemetry",
      "--file-prefix=netdev-store-\(getpid())", "--lcores", "0@\(place),1@\(place)",
      "--vdev", "net_tap0,iface=\(Self.interface)", "--vdev", "net_vhost0,iface=\(socket)",
      "--", "-i", "--auto-start", "--forward-mode=io",
      "--total-num-mbufs=8192",
    ])
    defer {
      testpmd.type("quit")
      let end = testpmd
      try? blocking { await end.waitForEnd(within: .seconds(20)) }
      unlink(socket)
    }
    let deadline = ContinuousClock.now + .seconds(60)
    while !testpmd.output.contains("testpmd> ") {
      guard ContinuousClock.now < deadline, !testpmd.hasEnded else {
        throw Stop("testpmd: no prompt:\n\(testpmd.output)", status: EX_UNAVAILABLE)
      }
      usleep(2000)
    }
    return try measureDevice("vhost-user:\(socket)", options)
  }

  private func measureDevice(_ url: String, _ options: Options) throws -> Measurement {
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 1
    configuration.cpus = [Int(options.serverCPU)]
    let device = try blocking { [configuration] in
      try await NetworkDevice.open(url, configuration: configuration)
    }
    guard let network = IPv4Network(Self.server) else { throw Stop("no address", status: EX_SOFTWARE) }
    let responder = try Responder(
      macAddress: device.hardwareAddress, addresses: [network], ipv6Addresses: nil, udpEcho: .none)
    let serving = Task {
      try await device.run { queue in try await serve(queue, responder, at: UInt16(STORE_PORT)) }
    }
    defer {
      try? blocking {
        try await device.close()
        _ = await serving.result
      }
    }
    return try ask(options)
  }

  /// The client's part, on the main thread.
  private func ask(_ options: Options) throws -> Measurement {
    try shell("ip addr add \(Self.client) dev \(Self.interface) && ip link set \(Self.interface) up")
    guard let address = IPv4Network(Self.server)?.address,
      let client = store_client_open(UInt32(address.rawValue), options.keys, options.value)
    else { throw Stop("opening the client: \(String(cString: strerror(errno)))", status: EX_OSERR) }
    defer { store_client_close(client) }
    try check(store_client_fill(client), "setting the keys")
    var times = [UInt32](repeating: 0, count: options.roundTrips)
    // Whatever is slow the first time.
    try check(store_client_ping(client, options.clientCPU, &times, min(100, times.count)), "a first round trip")
    try check(store_client_ping(client, options.clientCPU, &times, times.count), "a round trip")
    var nanoseconds: UInt64 = 0
    var answered = options.requests
    try check(
      store_client_stream(client, options.clientCPU, options.window, &answered, &nanoseconds),
      "\(options.window) under way")
    return Measurement(times: times, requests: answered, nanoseconds: nanoseconds)
  }

  private func check(_ result: Int32, _ what: String) throws {
    guard result < 0 else { return }
    throw Stop("\(rawValue): \(what): \(String(cString: strerror(-result)))", status: EX_OSERR)
  }

  private func shell(_ command: String) throws {
    guard system(command) == 0 else { throw Stop("\(rawValue): this failed: \(command)", status: EX_OSERR) }
  }
}

/// The example's store, for the server on sockets: touched by its thread alone.
final class SocketStore {
  fileprivate var store = Store()
}

/// What the server on sockets calls.
private func answerRequest(
  _ context: UnsafeMutableRawPointer?, _ request: UnsafeRawPointer?, _ length: Int, _ answer: UnsafeMutableRawPointer?,
  _ room: Int
) -> Int {
  guard let context, let request, let answer else { return 0 }
  let own = Unmanaged<SocketStore>.fromOpaque(context).takeUnretainedValue()
  let bytes = own.store.answer(RawSpan(_unsafeStart: request, byteCount: length))
  let count = min(bytes.count, room)
  bytes.withUnsafeBytes { if let base = $0.baseAddress { memcpy(answer, base, count) } }
  return count
}
