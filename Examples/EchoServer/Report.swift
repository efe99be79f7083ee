import ExampleSupport
import NetdevProgram
import Responder
import Synchronization

/// What the server answered, gathered from its queues as they end.
final class Report: Sendable {
  private let total = Mutex((statistics: ResponderStatistics(), unsent: 0))

  /// Adds a queue's, and how many answers could not be sent for their own sake.
  func add(_ statistics: ResponderStatistics, unsent: Int) {
    total.withLock { total in
      total.statistics += statistics
      total.unsent += unsent
    }
  }

  func print() {
    let (statistics, unsent) = total.withLock { $0 }
    Output.standard.print(statistics.description + (unsent > 0 ? ", not sent \(unsent)" : ""))
  }
}
