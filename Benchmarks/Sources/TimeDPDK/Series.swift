import BenchmarkSupport

/// The rounds of one contender in one case.
struct Series {
  let contender: Contender
  let title: String
  private(set) var rounds: [Measurement] = []

  init(_ contender: Contender, title: String) {
    self.contender = contender
    self.title = title
  }

  mutating func add(_ measurement: Measurement) { rounds.append(measurement) }

  /// Millions of frames a second.
  var rates: Summary { Summary(rounds.map { $0.rate / 1e6 }) }

  /// Rounds in which a thread waited for its CPU longer than `limit` although the measurement was repeated.
  func disturbed(_ limit: Double) -> Int { rounds.count { $0.waiting > limit } }

  var roundsWithLoss: Int { rounds.count { $0.lostFrames } }
}

/// All contenders in one case.
struct CaseResult {
  let measured: Case
  var series: [Series]

  /// The rate that the others are compared with; nil when DPDK took no part.
  var reference: Double? { series.first { $0.contender == .dpdk }?.rates.median }

  func ratio(_ series: Series) -> Double? { reference.flatMap { $0 > 0 ? series.rates.median / $0 : nil } }
}

extension CaseResult {
  /// The table of this case.
  func table(disturbance: Double) -> String {
    var lines = [padded(measured.title, 36) + paddedLeft("Mpps (lowest-highest)", 26) + paddedLeft("× DPDK", 9)]
    for series in series {
      let rates = series.rates
      let rate = "\(rounded(rates.median, 100)) (\(rounded(rates.lowest, 100))-\(rounded(rates.highest, 100)))"
      let ratio = ratio(series).map { rounded($0, 100) } ?? "-"
      var notes: [String] = []
      let disturbed = series.disturbed(disturbance)
      if disturbed > 0 { notes.append("\(disturbed) of \(series.rounds.count) rounds disturbed") }
      if series.roundsWithLoss > 0 { notes.append("frames lost in \(series.roundsWithLoss)") }
      lines.append(
        padded("  " + series.title, 36) + paddedLeft(rate, 26) + paddedLeft(ratio, 9) + "   "
          + notes.joined(separator: ", "))
    }
    return lines.joined(separator: "\n")
  }
}
