import BenchmarkSupport
import CEchoTwin
import Glibc
import NetdevDevices

/// One way to answer datagrams over a TAP interface.
struct Contender {
  enum Server {
    /// The framework, awaiting each answer's release or only its publication.
    case framework(awaitsRelease: Bool)
    /// Read, swap, write in C.
    case loop
    /// `recvfrom`, `sendto`.
    case sockets
  }

  let name: String
  let title: String
  let server: Server
  /// How long an idle server polls before it sleeps.
  var busyPoll = Duration.zero

  static let loopInC = Contender(name: "c", title: "C loop on the descriptor", server: .loop)
  static let kernelSockets = Contender(name: "sockets", title: "kernel UDP sockets in C", server: .sockets)

  static let all = [
    Contender(name: "send", title: "for await + send", server: .framework(awaitsRelease: true)),
    loopInC,
    kernelSockets,
    Contender(name: "submit", title: "for await + submit", server: .framework(awaitsRelease: false)),
    Contender(
      name: "send-poll", title: "for await + send, polls 50 µs", server: .framework(awaitsRelease: true),
      busyPoll: .microseconds(50)),
    Contender(name: "c-poll", title: "C loop, polls 50 µs", server: .loop, busyPoll: .microseconds(50)),
  ]

  /// Latency, then rate, on an interface made for it.
  func measure(roundTrips: Int, packets: Int, cpus: (client: Int32, server: Int32)) throws -> Measurement {
    switch server {
    case .framework(let awaitsRelease):
      return try measureFramework(awaitsRelease: awaitsRelease, roundTrips: roundTrips, packets: packets, cpus: cpus)
    case .loop, .sockets:
      return try measureTwin(roundTrips: roundTrips, packets: packets, cpus: cpus)
    }
  }

  private func measureFramework(
    awaitsRelease: Bool, roundTrips: Int, packets: Int, cpus: (client: Int32, server: Int32)
  ) throws -> Measurement {
    var configuration = NetworkDevice.Configuration()
    configuration.cpus = [Int(cpus.server)]
    configuration.busyPoll = busyPoll
    let device = try blocking { [configuration] in
      try await NetworkDevice.open("tap:\(TimeEcho.interface)", configuration: configuration)
    }
    let echo = Task { try await awaitsRelease ? echoAndSend(device) : echoAndSubmit(device) }
    defer {
      try? blocking {
        try await device.close()
        _ = await echo.result
      }
    }
    try check(echo_configure(TimeEcho.interface), "configuring \(TimeEcho.interface)")
    return try ask(tap: -1, roundTrips: roundTrips, packets: packets, cpu: cpus.client)
  }

  private func measureTwin(
    roundTrips: Int, packets: Int, cpus: (client: Int32, server: Int32)
  ) throws -> Measurement {
    let tap = echo_open_tap(TimeEcho.interface)
    try check(tap, "opening \(TimeEcho.interface)")
    defer { close(tap) }
    try check(echo_configure(TimeEcho.interface), "configuring \(TimeEcho.interface)")
    var isLoop = false
    if case .loop = server { isLoop = true }
    let spin = UInt64(busyPoll / .nanoseconds(1))
    guard let server = echo_start(isLoop ? ECHO_LOOP : ECHO_SOCKETS, tap, cpus.server, spin) else {
      throw Stop("starting the server: \(String(cString: strerror(errno)))", status: EX_OSERR)
    }
    defer { _ = echo_stop(server) }
    return try ask(tap: isLoop ? -1 : tap, roundTrips: roundTrips, packets: packets, cpu: cpus.client)
  }

  /// The client's part, on the main thread.
  private func ask(tap: Int32, roundTrips: Int, packets: Int, cpu: Int32) throws -> Measurement {
    guard let client = echo_client_open(TimeEcho.interface, tap, TimeEcho.payload) else {
      throw Stop("opening the client: \(String(cString: strerror(errno)))", status: EX_OSERR)
    }
    defer { echo_client_close(client) }
    var times = [UInt32](repeating: 0, count: roundTrips)
    // Whatever is slow the first time.
    try check(echo_client_ping(client, cpu, &times, min(100, roundTrips)), "\(name): a first round trip")
    try check(echo_client_ping(client, cpu, &times, roundTrips), "\(name): a round trip")
    var nanoseconds: UInt64 = 0
    var answered = packets
    try check(
      echo_client_stream(client, cpu, TimeEcho.window, &answered, &nanoseconds),
      "\(name): \(TimeEcho.window) under way")
    return Measurement(times: times, packets: answered, nanoseconds: nanoseconds)
  }

  private func check(_ result: Int32, _ what: String) throws {
    guard result < 0 else { return }
    throw Stop("\(what): \(String(cString: strerror(-result)))", status: EX_OSERR)
  }
}
