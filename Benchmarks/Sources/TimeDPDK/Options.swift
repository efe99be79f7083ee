import BenchmarkSupport
import Glibc

/// What the command line asks for.
struct Options: Sendable {
  /// The pages that frames lie on, on all sides.
  enum Pages: String, CaseIterable, Sendable {
    case small, huge
  }

  var rounds = 11
  /// Seconds that a rate is measured over, and those before it.
  var seconds = 0.7
  var warmUp = 0.3
  var contenders = Contender.all
  /// Of those that are not the first, only DPDK and bursts take part.
  var rings = Rings.allCases
  var scenarios = Scenario.allCases
  var sizes = [64, 1500]
  /// Frames that go round in the macswap loop.
  var window = 128
  /// Descriptors a ring.
  var queueSize = 256
  var mergeableBuffers = true
  var pages: Pages
  var deviceCPU = 0
  var driverCPU = 1
  /// Share of a measurement that one of the two threads may wait for its CPU before the measurement is made again.
  var disturbance = 0.01
  /// How often that is done.
  var repetitions = 4
  var plot: String?
  /// Prints each measurement.
  var isVerbose = false

  init(_ arguments: [String]) throws {
    pages = Self.freeHugePages >= Self.neededHugePages ? .huge : .small
    let cpus = allowedCPUs
    guard cpus.count >= 2 else {
      throw Stop("two CPUs are needed, one a side; this process may use \(cpus.count)", status: EX_UNAVAILABLE)
    }
    (deviceCPU, driverCPU) = (cpus[0], cpus[1])
    var rest = arguments[...]
    while let name = rest.popFirst() {
      if name == "--verbose" {
        isVerbose = true
        continue
      }
      guard let value = rest.popFirst() else { throw Self.usage(name) }
      try take(name, value)
    }
    guard window <= queueSize else {
      throw Stop("a window larger than the rings: frames would be lost", status: EX_USAGE)
    }
    guard pages == .small || Self.freeHugePages >= Self.neededHugePages else {
      throw Stop(
        "\(Self.neededHugePages) free huge pages are needed, there are \(Self.freeHugePages): "
          + "sysctl vm.nr_hugepages=\(Self.neededHugePages)", status: EX_UNAVAILABLE)
    }
  }

  private mutating func take(_ name: String, _ value: String) throws {
    func number<Number: LosslessStringConvertible & Comparable>(_ lowest: Number) throws -> Number {
      guard let number = Number(value), number >= lowest else { throw Self.usage(name) }
      return number
    }
    func list<Element>(_ element: (String) -> Element?) throws -> [Element] {
      let words = value.split(separator: ",").map { String($0) }
      let elements = words.compactMap(element)
      guard !words.isEmpty, elements.count == words.count else { throw Self.usage(name) }
      return elements
    }
    switch name {
    case "--rounds": rounds = try number(1)
    case "--seconds": seconds = try number(0.05)
    case "--warm-up": warmUp = try number(0)
    case "--window": window = try number(1)
    case "--queue-size": queueSize = try number(64)
    case "--mrg-rxbuf": mergeableBuffers = try number(0) == 1
    case "--disturbance": disturbance = try number(0)
    case "--repetitions": repetitions = try number(0)
    case "--plot": plot = value
    case "--only": contenders = try list { name in Contender.all.first { $0.name == name } }
    case "--rings": rings = try list { Rings(rawValue: $0) }
    case "--scenarios": scenarios = try list { Scenario(rawValue: $0) }
    case "--sizes": sizes = try list { Int($0) }.filter { (64...1514).contains($0) }
    case "--cpus":
      let pair = try list { Int($0) }
      guard pair.count == 2, pair[0] != pair[1], pair.allSatisfy({ allowedCPUs.contains($0) }) else {
        throw Self.usage(name)
      }
      (deviceCPU, driverCPU) = (pair[0], pair[1])
    case "--pages":
      guard let pages = Pages(rawValue: value) else { throw Self.usage(name) }
      self.pages = pages
    default: throw Self.usage(name)
    }
  }

  private static func usage(_ name: String) -> Stop {
    Stop(
      """
      not understood: \(name)
      usage: TimeDPDK [--rounds N] [--seconds S] [--warm-up S] [--only \(Contender.all.map { $0.name }.joined(separator: ","))]
                      [--scenarios \(Scenario.allCases.map { $0.rawValue }.joined(separator: ","))] [--sizes 64,1500]
                      [--rings \(Rings.allCases.map { $0.rawValue }.joined(separator: ","))]
                      [--window FRAMES] [--queue-size N] [--mrg-rxbuf 0|1] [--pages small|huge] [--cpus DEVICE,DRIVER]
                      [--disturbance SHARE] [--repetitions N] [--plot FILE.svg] [--verbose]
      """, status: EX_USAGE)
  }

  /// Both sides, and what they have beside their packets.
  private static let neededHugePages = 320

  private static var freeHugePages: Int {
    let lines = textOfFile("/proc/meminfo").split(separator: "\n")
    let line = lines.first { $0.hasPrefix("HugePages_Free:") }
    return line?.split(separator: " ").last.flatMap { Int($0) } ?? 0
  }
}
