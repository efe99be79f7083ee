import CFaultSupport
import Foundation
import Glibc

/// Many lives of devices in one process, mixed by a seed: nothing crashes, nothing is left, nothing spins.
@MainActor final class Soak {
  private let cycles: Int
  private let withTap: Bool
  private let seed: UInt64
  private var state: UInt64

  init(cycles: Int, seed: UInt64, withTap: Bool) {
    self.cycles = cycles
    self.seed = seed
    self.withTap = withTap
    state = seed
  }

  /// SplitMix64.
  private func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
    return word ^ word >> 31
  }

  /// True when nothing was found.
  func run() async -> Bool {
    let kinds = Kind.allCases.filter { withTap || !$0.needsRoot }
    // Each once, so that what the runtime makes but once is there.
    for kind in kinds { guard await live(kind, 0) else { return false } }
    try? await Task.sleep(for: .milliseconds(100))
    let before = fault_take_census()
    let (clock, used) = (ContinuousClock.now, fault_used_cpu())
    var counts: [String: Int] = [:]
    for cycle in 1...max(1, cycles) {
      let kind = kinds[Int(next() % UInt64(kinds.count))]
      counts[kind.rawValue, default: 0] += 1
      guard await live(kind, cycle) else { return false }
      guard cycle.isMultiple(of: 250) || cycle == cycles else { continue }
      let left = await Census.excess(over: before, pools: 0)
      let grown = fault_take_census().resident - before.resident
      let seconds = max(1, (ContinuousClock.now - clock).components.seconds)
      print(
        "\(cycle) cycles in \(seconds) s, \((fault_used_cpu() - used) / 1000) ms of CPU, memory \(grown) KiB above the start"
      )
      guard left.isEmpty else { return found("cycle \(cycle): \(left)") }
      // Twice a pool and its rings: what the allocator keeps, not what grows with the cycles.
      guard grown < 24 << 10 else { return found("cycle \(cycle): memory has grown by \(grown) KiB") }
    }
    print("ok: \(counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))")
    return true
  }

  private func live(_ kind: Kind, _ cycle: Int) async -> Bool {
    let life = Life(kind, refusedPhase: nil, isMeasured: false)
    await life.live()
    guard !life.outcome.violations.isEmpty else { return true }
    return found("cycle \(cycle), \(kind.rawValue): \(life.outcome.violations.joined(separator: "; "))")
  }

  private func found(_ what: String) -> Bool {
    print("FOUND with seed \(seed): \(what)")
    return false
  }
}
