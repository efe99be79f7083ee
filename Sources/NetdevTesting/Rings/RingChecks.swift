internal import Synchronization

/// How often each clause of a ring was looked at where it could have been found broken, by one monitor; it adds to a total of the
/// process when it goes.
final class RingChecks {
  private var counts = none
  private static let total = Mutex(none)
  private static var none: [Int] { [Int](repeating: 0, count: RingClause.allCases.count) }

  deinit {
    let counts = counts
    Self.total.withLock { total in for place in total.indices { total[place] += counts[place] } }
  }

  func count(_ clause: RingClause) { counts[clause.rawValue] += 1 }

  static func total(_ clause: RingClause) -> Int { total.withLock { $0[clause.rawValue] } }
}
