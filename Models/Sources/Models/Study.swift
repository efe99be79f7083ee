import Explorer
import Glibc

/// Models of one piece of code: they pass as the code stands, and each of its accesses, made weaker, makes one of them fail.
struct Study {
  let models: [Model]
  private var sites: [Site: AccessKind] = [:]
  /// The weakenings that there are, as `Unneeded` names them.
  private(set) var keys: Set<String> = []
  /// Which model found something last: tried first.
  private var order: [Int]

  init(models: [Model]) {
    self.models = models
    order = models.indices.filter { models[$0].findsWeakenings }
  }

  /// How many findings.
  mutating func run() -> Int {
    var failures = 0
    for model in models where !passes(model) { failures += 1 }
    for (name, site, chain) in weakenings {
      let line = "  \(name), line \(site.line)"
      for weakening in chain {
        let key = "\(name): \(weakening)"
        keys.insert(key)
        let reason = Unneeded.reasons[key]
        let found = find(site, weakening)
        switch (found, reason) {
        case (let found?, nil): say("\(line): \(weakening) is found: \(found.what)")
        case (nil, _?): say("\(line): \(weakening) changes nothing, as is known")
        case (nil, nil):
          failures += 1
          say("WRONG  \(key) is found by no model")
        case (_?, _?):
          failures += 1
          say("WRONG  \(key) is found, and was thought to change nothing")
        }
        if found != nil { break }
      }
    }
    return failures
  }

  private mutating func passes(_ model: Model) -> Bool {
    let explorer = Explorer()
    let start = ContinuousClock.now
    let finding = explorer.explore(model)
    let took = start.duration(to: .now).formatted
    say("\(model.name): \(explorer.states) states, \(explorer.executions) executions, \(took)")
    sites.merge(explorer.sites) { first, _ in first }
    guard let finding else { return true }
    say("WRONG  \(finding.what)")
    for line in finding.trace { say("       \(line)") }
    return false
  }

  /// Every access with what it can be weakened to, named by function, kind and number in the function.
  private var weakenings: [(name: String, site: Site, chain: [Weakening])] {
    var counts: [String: Int] = [:]
    var result: [(name: String, site: Site, chain: [Weakening])] = []
    for (site, kind) in sites.sorted(by: { $0.key < $1.key }) where !site.isScenery {
      let name = "\(site.place) \(kind.name)"
      counts[name, default: 0] += 1
      for chain in kind.chains { result.append(("\(name) \(counts[name, default: 0])", site, chain)) }
    }
    return result
  }

  private mutating func find(_ site: Site, _ weakening: Weakening) -> Finding? {
    for (position, index) in order.enumerated() {
      guard let finding = Explorer(weakening: (site, weakening)).explore(models[index]) else { continue }
      order.remove(at: position)
      order.insert(index, at: 0)
      return finding
    }
    return nil
  }
}

extension Duration {
  fileprivate var formatted: String {
    let tenths = components.seconds * 10 + components.attoseconds / 100_000_000_000_000_000
    return "\(tenths / 10).\(tenths % 10) s"
  }
}

/// Prints a line at once, also into a pipe: the next one may take a while.
func say(_ line: String) {
  print(line)
  fflush(nil)
}
