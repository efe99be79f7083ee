import BenchmarkSupport

/// The rounds of one contender in one case, on one kind of rings.
struct Series {
  let contender: Contender
  let rings: Rings
  let title: String
  private(set) var rounds: [Measurement] = []

  init(_ contender: Contender, _ rings: Rings, title: String) {
    self.contender = contender
    self.rings = rings
    self.title = title
  }

  mutating func add(_ measurement: Measurement) { rounds.append(measurement) }

  /// Millions of frames a second.
  var rates: Summary { Summary(rounds.map { $0.rate / 1e6 }) }

  /// Rounds in which a thread waited for its CPU longer than `limit` although the measurement was repeated.
  func disturbed(_ limit: Double) -> Int { rounds.count { $0.waiting > limit } }

  var roundsWithLoss: Int { rounds.count { $0.lostFrames } }

  /// How often as fast as another contender, round by round; rounds in which one of the two was disturbed do not count, unless
  /// that leaves none.
  func ratios(to other: Series, _ limit: Double) -> Summary? {
    let pairs = zip(rounds, other.rounds).filter { $0.1.rate > 0 }
    let quiet = pairs.filter { $0.0.waiting <= limit && $0.1.waiting <= limit }
    let counted = quiet.isEmpty ? pairs : quiet
    return counted.isEmpty ? nil : Summary(counted.map { $0.0.rate / $0.1.rate })
  }
}

/// All contenders in one case.
struct CaseResult {
  let measured: Case
  /// Share of a measurement that a thread may wait for its CPU.
  let disturbance: Double
  var series: [Series]

  /// The rate that others of the same rings are compared with; nil when DPDK took no part.
  func reference(_ rings: Rings) -> Double? { dpdk(rings)?.rates.median }

  private func dpdk(_ rings: Rings) -> Series? { series.first { $0.contender == .dpdk && $0.rings == rings } }

  /// Beside DPDK on the same rings.
  func ratio(_ series: Series) -> Summary? {
    dpdk(series.rings).flatMap { series.ratios(to: $0, disturbance) }
  }

  /// Beside the same contender on split rings.
  func ratioToSplit(_ one: Series) -> Summary? {
    guard one.rings != .split else { return nil }
    return series.first { $0.contender == one.contender && $0.rings == .split }.flatMap {
      one.ratios(to: $0, disturbance)
    }
  }
}

extension CaseResult {
  /// The table of this case.
  var table: String {
    var lines: [String] = []
    for rings in series.map({ $0.rings }).reduce(into: [Rings](), { if !$0.contains($1) { $0.append($1) } }) {
      lines.append(
        padded("\(measured.title), \(rings.title)", 40) + paddedLeft("Mpps (lowest-highest)", 24)
          + paddedLeft("× DPDK (95 %)", 21) + paddedLeft("× split (95 %)", 21))
      for series in series where series.rings == rings {
        let rates = series.rates
        let rate = "\(rounded(rates.median, 100)) (\(rounded(rates.lowest, 100))-\(rounded(rates.highest, 100)))"
        var notes: [String] = []
        let disturbed = series.disturbed(disturbance)
        if disturbed > 0 { notes.append("\(disturbed) of \(series.rounds.count) rounds disturbed") }
        if series.roundsWithLoss > 0 { notes.append("frames lost in \(series.roundsWithLoss)") }
        lines.append(
          padded("  " + series.title, 40) + paddedLeft(rate, 24) + paddedLeft(Self.text(ratio(series)), 21)
            + paddedLeft(Self.text(ratioToSplit(series)), 21) + "   " + notes.joined(separator: ", "))
      }
    }
    return lines.joined(separator: "\n")
  }

  /// A median with its interval.
  private static func text(_ ratios: Summary?) -> String {
    guard let ratios else { return "-" }
    let (low, high) = (ratios.interval.lowerBound, ratios.interval.upperBound)
    return "\(rounded(ratios.median, 100)) (\(rounded(low, 100))-\(rounded(high, 100)))"
  }
}
