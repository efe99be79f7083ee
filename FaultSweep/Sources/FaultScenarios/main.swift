import CFaultSupport
import Foundation
import Glibc
import Netdev

// FaultScenarios KIND: one life of a device, in which the environment's NETDEV_FAULT refuses a call (netdev_fault.h), after
// one in which nothing is refused. One line says what came of it.
// FaultScenarios soak CYCLES SEED: many lives in one process.

// While there is one thread.
fault_start_nursery()
let hasOwnNetwork = fault_enter_network()
let arguments = CommandLine.arguments.dropFirst()

switch arguments.first {
case "kinds":
  for kind in Kind.allCases where hasOwnNetwork || !kind.needsRoot { print(kind.rawValue) }
case "soak" where arguments.count == 3:
  let soak = Soak(cycles: Int(arguments[2]) ?? 100, seed: UInt64(arguments[3]) ?? 1, withTap: hasOwnNetwork)
  exit(await soak.run() ? 0 : 1)
default:
  guard let kind = arguments.first.flatMap({ Kind(rawValue: $0) }), netdev_fault_is_built() else {
    print("usage: FaultScenarios KIND | kinds | soak CYCLES SEED")
    exit(64)
  }
  let plan = ProcessInfo.processInfo.environment["NETDEV_FAULT"]
  let phase = plan?.split(separator: "/").first.map { String($0) }
  // What is refused in any phase is not, before the life that is measured.
  _ = netdev_fault_plan(nil)
  netdev_fault_phase("warm")
  let warm = Life(kind, refusedPhase: nil, isMeasured: false)
  await warm.live()
  try? await Task.sleep(for: .milliseconds(20))
  let (before, kept) = (fault_take_census(), Quarantine.count)
  if let plan { _ = netdev_fault_plan(plan) }
  let life = Life(kind, refusedPhase: phase, isMeasured: true)
  await life.live()
  let left = await Census.excess(over: before, pools: Quarantine.count - kept)
  let violations = warm.outcome.violations.map { "warming up: \($0)" } + life.outcome.violations + left
  netdev_fault_write_record()
  print("fired \(netdev_fault_fired())")
  print("outcome \(life.outcome.words.joined(separator: ", "))")
  for violation in violations { print("violation \(violation)") }
  // The devices' own ends have been waited for; what the runtime still does is none of ours.
  fflush(nil)
  _exit(violations.isEmpty ? 0 : 1)
}
