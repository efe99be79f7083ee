// The example KeyValueStore, timed: on a TAP interface, on a packet socket and behind a vhost-user switch, against the same store on
// kernel sockets.
//
//     TimeStore [--rounds N] [--round-trips N] [--requests N] [--cpus CLIENT,SERVER[,SWITCH]] [--only NAME,NAME]
//
// The client is the same for all of them: one UDP socket of this kernel. The contenders take turns, round after round, each on a wire
// of its own that goes when its turn ends. Before it makes its first thread the program enters a network namespace of its own.
import BenchmarkSupport
import CStoreTwin
import CTwinSupport
import Glibc

@main struct TimeStore {
  static func main() {
    do {
      let options = try Options(Array(CommandLine.arguments.dropFirst()))
      try enterNetwork()
      var results: [(contender: Contender, rounds: [Measurement])] = options.contenders.map { ($0, []) }
      // A first round, shorter, is not counted.
      for round in 0...options.rounds {
        var share = options
        if round == 0 {
          share.roundTrips = max(1, options.roundTrips / 10)
          share.requests = max(options.window, options.requests / 10)
        }
        for position in results.indices {
          let measurement = try results[position].contender.measure(share)
          if round > 0 { results[position].rounds.append(measurement) }
        }
      }
      report(results, options)
    } catch let stop as Stop {
      print("TimeStore: \(stop.message)")
      exit(stop.status)
    } catch {
      print("TimeStore: \(error)")
      exit(EXIT_FAILURE)
    }
  }

  /// A namespace for this process, in which the kernel says nothing of its own accord: threads that are made later belong to it too.
  static func enterNetwork() throws {
    let entered = twin_new_network()
    guard entered == 0 else {
      throw Stop(
        "a network namespace of its own was refused (\(String(cString: strerror(-entered)))): run it as root",
        status: EX_NOPERM)
    }
    guard system("ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6") == 0 else {
      throw Stop("there is no `ip`: apt-get install iproute2", status: EX_UNAVAILABLE)
    }
  }

  static func report(_ results: [(contender: Contender, rounds: [Measurement])], _ options: Options) {
    print(
      """
      A store of \(options.keys) keys, values of \(options.value) bytes, one request in ten sets one; \(options.place); \
      \(options.rounds) interleaved rounds of \(options.roundTrips) round trips
      and up to \(options.requests) requests with \(options.window) under way. Medians (lowest-highest round).

      """)
    let reference = results.first { $0.contender == .sockets }?.rounds
    let columns = [("p50 µs", 24), ("1000 requests/s", 24), ("p50/sockets", 13), ("rate/sockets", 14)]
    print(columns.reduce(padded("", 36)) { $0 + paddedLeft($1.0, $1.1) })
    for (contender, rounds) in results {
      var (cells, ratios): ([String], [String]) = ([], [])
      for value in [{ $0.median }, { $0.rate / 1000 }] as [(Measurement) -> Double] {
        let summary = Summary(rounds.map(value))
        cells.append("\(rounded(summary.median)) (\(rounded(summary.lowest))-\(rounded(summary.highest)))")
        ratios.append(reference.map { rounded(summary.median / Summary($0.map(value)).median, 100) } ?? "-")
      }
      print(zip(cells + ratios, columns).reduce(padded(contender.title, 36)) { $0 + paddedLeft($1.0, $1.1.1) })
    }
  }
}

/// What one round of one contender came to.
struct Measurement {
  /// Microseconds a round trip, one request at a time.
  let median: Double
  /// Answers a second with the window full.
  let rate: Double

  init(times: [UInt32], requests: Int, nanoseconds: UInt64) {
    median = Double(times.sorted()[times.count / 2]) / 1000
    rate = Double(requests) * 1e9 / Double(max(1, nanoseconds))
  }
}
