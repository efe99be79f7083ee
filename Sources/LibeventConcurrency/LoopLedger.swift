import Synchronization

/// What all loops together do that are made by one task, or by the tasks that it makes: for tests.
package final class LoopLedger: Sendable {
  /// Where the loops are entered that this task makes; nil in programs.
  @TaskLocal package static var current: LoopLedger?

  /// That of a loop which is made here: of the task, or else of the loop whose thread this is.
  static var forNewLoop: LoopLedger? { current ?? LoopCore.inletHere?.ledger }

  private let count = Atomic<UInt64>(0)

  /// Nothing yet.
  package init() {}

  /// Turns in which nothing was done, as `LoopStatistics.idleTurns`.
  package var idleTurns: UInt64 { count.load(ordering: .relaxed) }

  func countIdleTurn() { count.add(1, ordering: .relaxed) }
}
