import BenchmarkSupport
import CTwinSupport
import Glibc

/// What the command line asks for.
struct Options {
  var rounds = 7
  var roundTrips = 20_000
  var packets = 100_000
  var contenders = Contender.all
  var clientCPU: Int32
  var serverCPU: Int32

  init(_ arguments: [String]) throws {
    var cpus = [Int32](repeating: 0, count: 2)
    let count = twin_allowed_cpus(&cpus, 2)
    // On a machine with one CPU both ends share it.
    clientCPU = cpus[0]
    serverCPU = count > 1 ? cpus[1] : cpus[0]
    var rest = arguments[...]
    while let name = rest.popFirst() {
      guard let value = rest.popFirst() else { throw Self.usage(name) }
      switch name {
      case "--rounds": rounds = try Self.number(name, value)
      case "--round-trips": roundTrips = try Self.number(name, value)
      case "--packets": packets = try Self.number(name, value)
      case "--cpus":
        let pair = value.split(separator: ",").compactMap { Int32($0) }
        guard pair.count == 2, pair.allSatisfy({ $0 >= 0 }) else { throw Self.usage(name) }
        (clientCPU, serverCPU) = (pair[0], pair[1])
      case "--only":
        let names = value.split(separator: ",").map { String($0) }
        contenders = Contender.all.filter { names.contains($0.name) }
        guard contenders.count == names.count else { throw Self.usage(name) }
      default: throw Self.usage(name)
      }
    }
  }

  private static func number(_ name: String, _ value: String) throws -> Int {
    guard let number = Int(value), number > 0 else { throw usage(name) }
    return number
  }

  private static func usage(_ name: String) -> Stop {
    let names = Contender.all.map { $0.name }.joined(separator: ",")
    return Stop(
      """
      not understood: \(name)
      usage: TimeEcho [--rounds N] [--round-trips N] [--packets N] [--cpus CLIENT,SERVER] [--only \(names)]
      """, status: EX_USAGE)
  }
}
