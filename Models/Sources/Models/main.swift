import Explorer
import Glibc
import LibeventConcurrency
import Netdev
import VhostUser
import Virtio

// models [NAME…]: the litmus tests, then the models whose names contain one of NAMES, and what goes with them.

let names = CommandLine.arguments.dropFirst()
var failures = 0

for litmus in Litmus.all {
  let (outcomes, finding) = litmus.run()
  guard outcomes != litmus.allowed || finding != nil else { continue }
  failures += 1
  say("WRONG  \(litmus.name): \(outcomes.sorted().joined(separator: " "))")
  say("       C11 says \(litmus.allowed.sorted().joined(separator: " ")) \(finding?.what ?? "")")
}
say("\(Litmus.all.count) litmus tests, \(failures) of them wrong")

var keys: Set<String> = []
for models in [LoopModels.all, PoolModels.all, DoorbellModels.all, RingModels.split, RingModels.packed] {
  guard names.isEmpty || models.contains(where: { model in names.contains { model.name.contains($0) } }) else {
    continue
  }
  var study = Study(models: models)
  failures += study.run()
  keys.formUnion(study.keys)
}
// Names count accesses: who changes a file may make one name another's.
for key in Unneeded.reasons.keys.sorted() where names.isEmpty && !keys.contains(key) {
  failures += 1
  say("WRONG  \(key) is listed, and there is no such weakening")
}
say(failures == 0 ? "All as it should be." : "\(failures) findings.")
exit(failures == 0 ? 0 : 1)
