internal import Explorer

// What LoopInlet.swift uses and what is not modelled, or is the explorer's.

typealias Atomic = ModelAtomic
typealias Mutex = ModelMutex

/// Links between jobs, in memory that is not atomic: as `JobLinks` of the library.
enum JobLinks {
  /// Of the jobs 1, 2, …; made anew for each execution.
  // Proof: the threads of a model are coroutines of one thread.
  nonisolated(unsafe) static var links: [PlainWord] = []

  static func next(_ address: UInt) -> UInt { UInt(links[Int(address) - 1].value) }
  static func setNext(_ address: UInt, _ next: UInt) { links[Int(address) - 1].value = UInt64(next) }
}

/// As `JobList` of the library: touched by one thread.
struct JobList {
  private(set) var jobs: [UInt] = []

  mutating func append(_ address: UInt) {
    JobLinks.setNext(address, 0)
    jobs.append(address)
  }

  mutating func popFirst() -> UInt? { jobs.isEmpty ? nil : jobs.removeFirst() }
}

protocol LoopBackend: AnyObject {
  func wake()
}

final class LoopLedger: Sendable {
  static let forNewLoop: LoopLedger? = nil
  func countIdleTurn() {}
}

enum LoopShortage { case watches, timers }

/// A backend that sleeps on an eventfd, as `LibeventBackend`.
final class ModelBackend: LoopBackend {
  private let event = WakeUp("the loop's eventfd")
  func wake() { event.signal() }
  func wait() { _ = event.wait() }
}
