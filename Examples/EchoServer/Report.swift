import Responder
import Synchronization

/// What the server answered, gathered from its queues as they end.
final class Report: Sendable {
  private let total = Mutex(ResponderStatistics())

  func add(_ statistics: ResponderStatistics) { total.withLock { $0 += statistics } }

  func print() { Swift.print(total.withLock { $0.description }) }
}
