import Explorer
import Glibc
import LibeventConcurrency
import Netdev
import VhostUser
import Virtio

// models [NAME…] [--all]: the litmus tests, then the models whose names contain one of NAMES. With --all also the weakenings
// that change nothing are tried, which takes a while: one that is found has become needed.

let arguments = CommandLine.arguments.dropFirst()
let triesAll = arguments.contains("--all")
let names = arguments.filter { $0 != "--all" }
var failures = 0

for litmus in Litmus.all {
  let (outcomes, finding) = litmus.run()
  guard outcomes != litmus.allowed || finding != nil else { continue }
  failures += 1
  say("WRONG  \(litmus.name): \(outcomes.sorted().joined(separator: " "))")
  say("       C11 says \(litmus.allowed.sorted().joined(separator: " ")) \(finding?.what ?? "")")
}
say("\(Litmus.all.count) litmus tests, \(failures) of them wrong")

for models in [LoopModels.all, PoolModels.all, DoorbellModels.all, RingModels.all] {
  guard names.isEmpty || models.contains(where: { model in names.contains { model.name.contains($0) } }) else {
    continue
  }
  var study = Study(models: models)
  failures += study.run(triesAll: triesAll)
}
say(failures == 0 ? "All as it should be." : "\(failures) findings.")
exit(failures == 0 ? 0 : 1)
