// Two queue pairs of a loopback device on two CPUs beside one pair on one: how many times as many frames they carry.
//
//     TimeScaling [ROUNDS]
//     TimeScaling carry QUEUES PACKETS [pausing]
//
// Each queue's device side works on the queue's own loop. One and two queues take turns, round after round, with bursts and with
// `for await`, so that what else the machine does hits both alike; a window in which a loop waited for its CPU is measured again. The
// second form carries so many frames on each queue and says nothing: `scaling.sh` looks at what its threads write. Pausing, it lets the
// loops sleep behind each burst, as they do where frames come from elsewhere.
import BenchmarkSupport
import Glibc
import NetdevDevices
import Synchronization

/// How a program uses the queue.
enum Way: String, CaseIterable {
  case burst = "receiveBurst + submit(burst)"
  case await = "for await + submit"
}

/// What one queue did in a window.
struct Share {
  let frames: Int
  /// Share of the time that its loop did not run.
  let waiting: Double
}

/// A window on every queue of a device, at the same time.
struct Window: Sendable {
  static let inFlight = 64
  let start: UInt64
  let end: UInt64

  init(after warmUp: Double, seconds: Double) {
    start = clock(CLOCK_MONOTONIC) + UInt64(warmUp * 1e9)
    end = start + UInt64(seconds * 1e9)
  }

  /// Carries frames from before the window to its end; how many in it.
  func carry(_ way: Way, on queue: isolated NetworkQueue) async throws -> Share {
    for _ in 0..<Self.inFlight { try await queue.submit(Packet(count: 64, in: queue.pool)) }
    while clock(CLOCK_MONOTONIC) < start { _ = try await Self.carry(way, on: queue, atLeast: 1024) }
    let (since, worked) = (clock(CLOCK_MONOTONIC), clock(CLOCK_THREAD_CPUTIME_ID))
    var frames = 0
    while clock(CLOCK_MONOTONIC) < end { frames += try await Self.carry(way, on: queue, atLeast: 1024) }
    let time = Double(clock(CLOCK_MONOTONIC) - since)
    return Share(frames: frames, waiting: 1 - Double(clock(CLOCK_THREAD_CPUTIME_ID) - worked) / time)
  }

  /// Receives and transmits so many frames; how many there were.
  static func carry(_ way: Way, on queue: isolated NetworkQueue, atLeast count: Int) async throws -> Int {
    var done = 0
    switch way {
    case .burst:
      while done < count, let burst = await queue.receiveBurst() {
        done += burst.count
        try await queue.submit(burst)
      }
    case .await:
      for await packet in queue.packets {
        try await queue.submit(packet)
        done += 1
        if done == count { break }
      }
    }
    return done
  }
}

/// Nanoseconds.
func clock(_ clock: clockid_t) -> UInt64 {
  var time = timespec()
  clock_gettime(clock, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

@main struct TimeScaling {
  static let seconds = 0.5
  /// Share of a window that a loop may wait before it is measured again, and how often that is done.
  static let disturbance = 0.01
  static let repetitions = 4

  static func main() {
    do {
      var arguments = CommandLine.arguments.dropFirst()
      if arguments.first == "carry" {
        let isPausing = arguments.last == "pausing"
        let numbers = arguments.dropFirst().dropLast(isPausing ? 1 : 0).map { Int($0) ?? 0 }
        guard numbers.count == 2, numbers.allSatisfy({ $0 > 0 }) else { throw usage }
        return try blocking { try await carry(numbers[1], onEachOf: numbers[0], isPausing: isPausing) }
      }
      let rounds = arguments.popFirst().map { Int($0) } ?? 11
      guard let rounds, rounds > 0, arguments.isEmpty else { throw usage }
      try blocking { try await compare(rounds) }
    } catch let stop as Stop {
      print("TimeScaling: \(stop.message)")
      exit(stop.status)
    } catch {
      print("TimeScaling: \(error)")
      exit(EXIT_FAILURE)
    }
  }

  static let usage = Stop("usage: TimeScaling [ROUNDS] | TimeScaling carry QUEUES PACKETS [pausing]", status: EX_USAGE)

  static func open(_ queues: Int, stallBound: Duration? = nil) async throws -> NetworkDevice {
    let cpus = allowedCPUs
    guard cpus.count >= queues else {
      throw Stop("\(queues) CPUs are needed; this process may use \(cpus.count)", status: EX_UNAVAILABLE)
    }
    var configuration = NetworkDevice.Configuration()
    configuration.cpus = Array(cpus.prefix(queues))
    if let stallBound { configuration.stallBound = stallBound }
    return try await NetworkDevice.open("loopback:?queues=\(queues)&lossless=1", configuration: configuration)
  }

  static func carry(_ packets: Int, onEachOf queues: Int, isPausing: Bool) async throws {
    let arrived = Arrivals()
    // Under valgrind a turn takes so long that each would be told to the log, which all loops write to.
    try await open(queues, stallBound: .seconds(3600)).run { queue in
      for _ in 0..<Window.inFlight { try await queue.submit(Packet(count: 64, in: queue.pool)) }
      // One that ended before the other has begun would leave it its buffers.
      arrived.add()
      while arrived.count < queues { try await queue.sleep(for: .milliseconds(1)) }
      var left = packets
      while left > 0 {
        left -= try await Window.carry(.burst, on: queue, atLeast: isPausing ? 1 : packets)
        if isPausing { try await queue.sleep(for: .microseconds(1)) }
      }
    }
  }

  /// Millions of frames a second on all queues together, and the longest wait of a loop.
  static func rate(_ way: Way, _ queues: Int) async throws -> (millions: Double, waiting: Double) {
    let device = try await open(queues)
    let window = Window(after: 0.2, seconds: seconds)
    let shares = Shares()
    try await device.run { queue in shares.add(try await window.carry(way, on: queue)) }
    let all = shares.all
    return (Double(all.reduce(0) { $0 + $1.frames }) / seconds / 1e6, all.map { $0.waiting }.max() ?? 0)
  }

  /// Of several windows the first that nobody disturbed, or the least disturbed one.
  static func quietRate(_ way: Way, _ queues: Int) async throws -> (millions: Double, waiting: Double) {
    var best = try await rate(way, queues)
    for _ in 0..<repetitions where best.waiting > disturbance {
      let next = try await rate(way, queues)
      if next.waiting < best.waiting { best = next }
    }
    return best
  }

  static func compare(_ rounds: Int) async throws {
    print(
      padded("Frames of 64 bytes, medians of \(rounds) rounds", 44) + paddedLeft("1 queue, M/s", 14)
        + paddedLeft("2 queues, M/s", 15) + paddedLeft("ratio (95 %)", 20))
    for way in Way.allCases {
      var (ones, twos, ratios): ([Double], [Double], [Double]) = ([], [], [])
      var disturbed = 0
      for _ in 0..<rounds {
        let (one, two) = (try await quietRate(way, 1), try await quietRate(way, 2))
        ones.append(one.millions)
        twos.append(two.millions)
        if max(one.waiting, two.waiting) <= disturbance {
          ratios.append(two.millions / one.millions)
        } else {
          disturbed += 1
        }
      }
      let text = ratios.isEmpty ? "-" : Self.text(Summary(ratios))
      print(
        padded("  " + way.rawValue, 44) + paddedLeft(rounded(Summary(ones).median), 14)
          + paddedLeft(rounded(Summary(twos).median), 15) + paddedLeft(text, 20)
          + (disturbed > 0 ? "   \(disturbed) of \(rounds) rounds disturbed, not counted" : ""))
    }
  }

  private static func text(_ ratios: Summary) -> String {
    let (low, high) = (ratios.interval.lowerBound, ratios.interval.upperBound)
    return "\(rounded(ratios.median, 100)) (\(rounded(low, 100))-\(rounded(high, 100)))"
  }
}

/// What the queues report, each from its own loop.
final class Shares: Sendable {
  private let shares = Mutex<[Share]>([])

  func add(_ share: Share) { shares.withLock { $0.append(share) } }
  var all: [Share] { shares.withLock { $0 } }
}

/// How many queues have come so far.
final class Arrivals: Sendable {
  private let arrived = Atomic<Int>(0)

  func add() { arrived.add(1, ordering: .relaxed) }
  var count: Int { arrived.load(ordering: .relaxed) }
}
