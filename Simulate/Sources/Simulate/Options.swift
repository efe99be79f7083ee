import Glibc

/// What the command line asks for.
struct Options {
  /// The first seed, and the last one.
  var seeds: ClosedRange<UInt64> = 0...999
  var world: String?
  var size: Int?
  var disturbances = Plan.Disturbances.all
  var traceLines = 40
  var part: UInt64 = 0
  var parts: UInt64 = 1
  /// Each seed runs twice, and gives the same trace.
  var isTwice = false

  /// Reads the command line; what it cannot read ends the process, with words and status 64.
  init(_ arguments: some Sequence<String>) {
    var (count, first) = (UInt64(1000), UInt64(0))
    var rest = Array(arguments)[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--first": first = Self.number(argument, rest.popFirst(), 0...UInt64.max)
      case "--world":
        guard let name = rest.popFirst(), Scenario.all.contains(where: { $0.name == name }) else {
          Self.refuse("--world is followed by the name of one")
        }
        world = name
      // A frame's number has 16 bits, and some worlds send several times as many.
      case "--size": size = Int(Self.number(argument, rest.popFirst(), 1...10_000))
      case "--trace": traceLines = Int(Self.number(argument, rest.popFirst(), 0...1_000_000))
      case "--twice": isTwice = true
      case "--without":
        for name in (rest.popFirst() ?? "?").split(separator: ",", omittingEmptySubsequences: false) {
          guard let found = Plan.Disturbances.names.first(where: { $0.name == name }) else {
            Self.refuse("'\(name)' is no disturbance")
          }
          disturbances.remove(found.value)
        }
      case "--part":
        let words = (rest.popFirst() ?? "").split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard words.count == 2 else { Self.refuse("--part is followed by K/N") }
        parts = Self.number(argument, words[1], 1...UInt64.max)
        part = Self.number(argument, words[0], 0...parts - 1)
      default: count = Self.number("the number of seeds", argument, 1...UInt64.max)
      }
    }
    let (last, isTooFar) = first.addingReportingOverflow(count - 1)
    guard !isTooFar else { Self.refuse("there are no \(count) seeds from \(first) on") }
    seeds = first...last
  }

  private static func number(_ what: String, _ text: String?, _ range: ClosedRange<UInt64>) -> UInt64 {
    guard let text, let number = UInt64(text), range.contains(number) else {
      refuse("\(what): '\(text ?? "")' is no number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  private static func refuse(_ words: String) -> Never {
    let worlds = Scenario.all.map { $0.name }.joined(separator: ", ")
    let disturbances = Plan.Disturbances.names.map { $0.name }.joined(separator: ", ")
    print(
      """
      \(words)
      usage: Simulate SEEDS [--first SEED] [--world NAME] [--size FRAMES] [--without DISTURBANCE,…] [--trace LINES] [--part K/N] [--twice]
      worlds: \(worlds)
      disturbances: \(disturbances)
      """)
    exit(64)
  }
}
