import BenchmarkSupport
import CTwinSupport
import Glibc

/// What the command line asks for.
struct Options {
  var rounds = 7
  var roundTrips = 10_000
  var requests = 200_000
  let window = 32
  let keys = 1000
  let value = 64
  var contenders = Contender.allCases
  var clientCPU: Int32
  var serverCPU: Int32
  /// Where the switch polls; nil where there is no CPU for it alone.
  var switchCPU: Int32?

  init(_ arguments: [String]) throws {
    var cpus = [Int32](repeating: 0, count: 3)
    let count = twin_allowed_cpus(&cpus, 3)
    clientCPU = cpus[0]
    serverCPU = count > 1 ? cpus[1] : cpus[0]
    switchCPU = count > 2 ? cpus[2] : nil
    // Without DPDK there is no switch.
    if !Self.has("dpdk-testpmd") {
      contenders.removeAll { $0 == .vhostUser }
      print("TimeStore: vhost-user is left out: dpdk-testpmd is not installed")
    }
    var rest = arguments[...]
    while let name = rest.popFirst() {
      guard let value = rest.popFirst() else { throw Self.usage(name) }
      switch name {
      case "--rounds": rounds = try Self.number(name, value)
      case "--round-trips": roundTrips = try Self.number(name, value)
      case "--requests": requests = try Self.number(name, value)
      case "--cpus":
        let numbers = value.split(separator: ",").compactMap { Int32($0) }
        guard (2...3).contains(numbers.count), numbers.allSatisfy({ $0 >= 0 }) else { throw Self.usage(name) }
        (clientCPU, serverCPU, switchCPU) = (numbers[0], numbers[1], numbers.count > 2 ? numbers[2] : nil)
      case "--only":
        let names = value.split(separator: ",").map { String($0) }
        contenders = Contender.allCases.filter { names.contains($0.rawValue) }
        guard contenders.count == names.count else { throw Self.usage(name) }
      default: throw Self.usage(name)
      }
    }
  }

  /// Who runs where.
  var place: String {
    "client on CPU \(clientCPU), server on CPU \(serverCPU)"
      + (switchCPU.map { ", switch on CPU \($0)" } ?? ", the switch on both")
  }

  private static func has(_ program: String) -> Bool { system("command -v \(program) > /dev/null") == 0 }

  private static func number(_ name: String, _ value: String) throws -> Int {
    guard let number = Int(value), number > 0 else { throw usage(name) }
    return number
  }

  private static func usage(_ name: String) -> Stop {
    let names = Contender.allCases.map { $0.rawValue }.joined(separator: ",")
    return Stop(
      """
      not understood: \(name)
      usage: TimeStore [--rounds N] [--round-trips N] [--requests N] [--cpus CLIENT,SERVER[,SWITCH]] [--only \(names)]
      """, status: EX_USAGE)
  }
}
