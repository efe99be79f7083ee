package import Explorer

/// `LoopInlet`, the library's own source, between threads that bring something and a loop.
package enum LoopModels {
  /// All of them.
  package static var all: [Model] { [jobs, requests, calls, stop] }

  /// A copy of `LoopCore.run`, `turn` and `sleep`: what they do with the inlet, in their order. `begin` stands for the hooks'
  /// beginnings; calls are made where somebody gives any.
  private static func run(
    _ inlet: LoopInlet, _ backend: ModelBackend, _ explorer: Explorer, begin: () -> Void = {},
    makeCalls: () -> Void = {}, run: (UInt) -> Void = { _ in }
  ) {
    var jobs = JobList()
    while !inlet.shallStop, !explorer.isOver {
      let isRequested = inlet.beginTurn()
      begin()
      inlet.drain(into: &jobs)
      if isRequested { makeCalls() }
      while let job = jobs.popFirst() { run(job) }
      if inlet.hasJobs { continue }
      guard inlet.beginSleep() else { continue }
      backend.wait()
      inlet.endSleep()
    }
  }

  /// Two threads push a job each; the loop runs each once, sees what came before it, and does not sleep while there is one.
  static var jobs: Model {
    Model("LoopInlet: two who push jobs") { explorer in
      let backend = ModelBackend()
      let inlet = LoopInlet(backend: backend)
      JobLinks.links = (1...2).map { PlainWord("the link of job \($0)") }
      let loads = (1...2).map { PlainWord("what job \($0) is for") }
      var ran: [UInt] = []
      for job in 1...2 as ClosedRange<UInt> {
        explorer.thread("pusher \(job)") {
          loads[Int(job) - 1].value = UInt64(job)
          inlet.push(job)
        }
      }
      explorer.thread("loop") {
        run(
          inlet, backend, explorer,
          run: { job in
            explorer.require(loads[Int(job) - 1].value == UInt64(job), "job \(job) does not see what it is for")
            ran.append(job)
          })
      }
      return {
        explorer.require(Set(ran).count == ran.count, "a job ran twice: \(ran)")
        explorer.require(ran.count == 2, "the loop sleeps, and of two jobs has run \(ran)")
      }
    }
  }

  /// Two threads leave something each, behind a hint that only the request for a turn orders, and ask for a turn: as
  /// `QueueMailbox.giveBack` and `takeFromOutside`. Nothing stays lying when the loop sleeps.
  static var requests: Model {
    Model("LoopInlet: two who ask for a turn") { explorer in
      let backend = ModelBackend()
      let inlet = LoopInlet(backend: backend)
      let hints = [ModelAtomic(false).named("hint 1"), ModelAtomic(false).named("hint 2")]
      var taken: [Int] = []
      for index in 0..<2 {
        explorer.thread("giver \(index + 1)") {
          hints[index].store(true, ordering: .relaxed)
          inlet.requestTurn()
        }
      }
      explorer.thread("loop") {
        run(
          inlet, backend, explorer,
          begin: {
            for index in 0..<2 where hints[index].load(ordering: .relaxed) {
              hints[index].store(false, ordering: .relaxed)
              taken.append(index + 1)
            }
          })
      }
      return { explorer.require(taken.count == 2, "the loop sleeps, and has taken only what givers \(taken) left") }
    }
  }

  /// Two threads give a call each: both are made, once, and the loop does not sleep while there is one.
  static var calls: Model {
    Model("LoopInlet: two who give calls") { explorer in
      let backend = ModelBackend()
      let inlet = LoopInlet(backend: backend)
      let made = PlainWord("what the calls leave")
      for index in 1...2 as ClosedRange<UInt64> {
        explorer.thread("giver \(index)") { inlet.execute { made.value += index } }
      }
      var calls = 0
      explorer.thread("loop") {
        run(inlet, backend, explorer, makeCalls: { calls += inlet.makeCalls() })
      }
      return {
        explorer.require(calls == 2 && made.value == 3, "the loop sleeps, and of two calls has made \(calls)")
      }
    }
  }

  /// A thread gives a call and then asks the loop to end: the loop ends, and makes the call before it, or not at all.
  static var stop: Model {
    Model("LoopInlet: calls, and the end") { explorer in
      let backend = ModelBackend()
      let inlet = LoopInlet(backend: backend)
      let done = PlainWord("what the call left")
      var calls = 0
      explorer.thread("owner") {
        inlet.execute { done.value = 1 }
        inlet.requestStop()
      }
      explorer.thread("loop") {
        run(inlet, backend, explorer, makeCalls: { calls += inlet.makeCalls() })
      }
      return {
        explorer.require(!explorer.isAsleep("loop"), "the loop sleeps, and was asked to end")
        explorer.require(calls <= 1, "a call was made twice")
      }
    }
  }
}
