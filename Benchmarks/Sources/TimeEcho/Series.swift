import BenchmarkSupport

/// What one round of one contender came to.
struct Measurement {
  /// Microseconds a round trip, one datagram at a time.
  let median: Double
  let p99: Double
  /// Answers a second with the window full.
  let rate: Double

  init(times: [UInt32], packets: Int, nanoseconds: UInt64) {
    let sorted = times.sorted()
    median = Double(sorted[sorted.count / 2]) / 1000
    p99 = Double(sorted[min(sorted.count - 1, sorted.count * 99 / 100)]) / 1000
    rate = Double(packets) * 1e9 / Double(max(1, nanoseconds))
  }
}

/// The rounds of one contender.
struct Series {
  private(set) var rounds: [Measurement] = []

  mutating func add(_ measurement: Measurement) { rounds.append(measurement) }

  func summary(_ value: (Measurement) -> Double) -> Summary { Summary(rounds.map(value)) }
}

/// The table, and each contender's ratios to the C loop and to the kernel's sockets where those took part.
func printTable(_ results: [(contender: Contender, series: Series)]) {
  let columns = ["p50 µs", "p99 µs", "1000 packets/s", "p50/C", "p50/sockets", "rate/C", "rate/sockets"]
  let widths = [24, 27, 24, 8, 13, 8, 14]
  print(zip(columns, widths).reduce(padded("", 32)) { $0 + paddedLeft($1.0, $1.1) })
  func reference(_ contender: Contender) -> Series? { results.first { $0.contender.name == contender.name }?.series }
  let references = [reference(.loopInC), reference(.kernelSockets)]
  for (contender, series) in results {
    let values: [(Measurement) -> Double] = [{ $0.median }, { $0.p99 }, { $0.rate / 1000 }]
    var cells = values.map { value in
      let summary = series.summary(value)
      return "\(rounded(summary.median)) (\(rounded(summary.lowest))-\(rounded(summary.highest)))"
    }
    for value in [values[0], values[2]] {
      for other in references {
        cells.append(other.map { rounded(series.summary(value).median / $0.summary(value).median, 100) } ?? "-")
      }
    }
    print(zip(cells, widths).reduce(padded(contender.title, 32)) { $0 + paddedLeft($1.0, $1.1) })
  }
}
