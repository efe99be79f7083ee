// Echo over a TAP interface, timed: the framework against a loop in plain C on the same kind of descriptor, and against
// sockets of the kernel's own stack behind the same kind of interface.
//
//     TimeEcho [--rounds N] [--round-trips N] [--packets N] [--cpus CLIENT,SERVER] [--only NAME,NAME]
//
// The contenders take turns, round after round, each on an interface of its own that goes when its turn ends, so that what
// else the machine does hits all of them alike. Client and server are pinned to one CPU each. Before it makes its first
// thread the program enters a network namespace of its own: it disturbs no interface of the machine and leaves none behind.
import BenchmarkSupport
import CEchoTwin
import CTwinSupport
import Glibc
import NetdevDevices

@main struct TimeEcho {
  static let interface = "echo0"
  static let payload = 64
  static let window = 32

  var options: Options
  var results: [(contender: Contender, series: Series)]

  static func main() {
    do {
      let options = try Options(Array(CommandLine.arguments.dropFirst()))
      try enterNetwork()
      var run = TimeEcho(options)
      try run.measure()
      run.report()
    } catch let stop as Stop {
      print("TimeEcho: \(stop.message)")
      exit(stop.status)
    } catch {
      print("TimeEcho: \(error)")
      exit(EXIT_FAILURE)
    }
  }

  init(_ options: Options) {
    self.options = options
    results = options.contenders.map { ($0, Series()) }
  }

  /// A namespace for this process: threads that are made later belong to it too.
  static func enterNetwork() throws {
    let entered = twin_new_network()
    guard entered == 0 else {
      throw Stop(
        "a network namespace of its own was refused (\(String(cString: strerror(-entered)))): run it as root",
        status: EX_NOPERM)
    }
    guard access("/dev/net/tun", R_OK | W_OK) == 0 else {
      throw Stop(
        "/dev/net/tun cannot be opened (\(String(cString: strerror(errno)))): modprobe tun, or give the container the device",
        status: EX_UNAVAILABLE)
    }
  }

  /// Round by round; a first round, shorter, is not counted.
  mutating func measure() throws {
    for round in 0...options.rounds {
      let share = round == 0 ? 10 : 1
      for position in results.indices {
        let measurement = try results[position].contender.measure(
          roundTrips: max(1, options.roundTrips / share), packets: max(Self.window, options.packets / share),
          cpus: (client: options.clientCPU, server: options.serverCPU))
        if round > 0 { results[position].series.add(measurement) }
      }
    }
  }

  func report() {
    print(
      """
      UDP echo over TAP, \(Self.payload) bytes; client on CPU \(options.clientCPU), server on CPU \(options.serverCPU); \
      \(options.rounds) interleaved rounds
      of \(options.roundTrips) round trips and up to \(options.packets) datagrams with \(Self.window) under way. \
      Medians (lowest-highest round).

      """)
    printTable(results)
  }
}
