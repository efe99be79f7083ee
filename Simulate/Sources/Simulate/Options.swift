import Glibc

/// What the command line asks for.
struct Options {
  var seeds = 1000
  var first: UInt64 = 0
  var world: String?
  var size: Int?
  var disturbances = Plan.Disturbances.all
  var traceLines = 40
  var part = 0
  var parts = 1
  /// Each seed runs twice, and gives the same trace.
  var isTwice = false

  init(_ arguments: some Sequence<String>) {
    var rest = Array(arguments)[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--first": first = Self.number(rest.popFirst())
      case "--world": world = rest.popFirst()
      case "--size": size = Int(Self.number(rest.popFirst()))
      case "--trace": traceLines = Int(Self.number(rest.popFirst()))
      case "--twice": isTwice = true
      case "--without":
        for name in (rest.popFirst() ?? "").split(separator: ",") {
          guard let found = Plan.Disturbances.names.first(where: { $0.name == name }) else { Self.usage() }
          disturbances.remove(found.value)
        }
      case "--part":
        let words = (rest.popFirst() ?? "").split(separator: "/")
        guard words.count == 2, let part = Int(words[0]), let parts = Int(words[1]), parts > 0 else { Self.usage() }
        (self.part, self.parts) = (part, parts)
      default:
        guard let seeds = Int(argument) else { Self.usage() }
        self.seeds = seeds
      }
    }
    if let world, !Scenario.all.contains(where: { $0.name == world }) { Self.usage() }
  }

  private static func number(_ text: String?) -> UInt64 {
    guard let text, let number = UInt64(text) else { usage() }
    return number
  }

  private static func usage() -> Never {
    let worlds = Scenario.all.map { $0.name }.joined(separator: ", ")
    let disturbances = Plan.Disturbances.names.map { $0.name }.joined(separator: ", ")
    print(
      """
      usage: Simulate SEEDS [--first SEED] [--world NAME] [--size FRAMES] [--without DISTURBANCE,…] [--trace LINES] [--part K/N] [--twice]
      worlds: \(worlds)
      disturbances: \(disturbances)
      """)
    exit(64)
  }
}
