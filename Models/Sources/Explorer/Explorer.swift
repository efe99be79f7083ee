internal import CCoroutine

/// A program of a few threads, explored in every order and with every value that each of its loads may read.
package struct Model {
  package let name: String
  /// Each access made weaker is looked for in it, too; else only the code as it stands.
  package let findsWeakenings: Bool
  /// Makes what the threads share, starts them, and returns what is looked at when none of them can go on. Called before each
  /// execution.
  package let make: (Explorer) -> () -> Void

  package init(_ name: String, findsWeakenings: Bool = true, _ make: @escaping (Explorer) -> () -> Void) {
    self.name = name
    self.findsWeakenings = findsWeakenings
    self.make = make
  }
}

/// What was found.
package struct Finding {
  package let what: String
  /// The steps that lead to it.
  package let trace: [String]
}

/// Runs a model in every way it can run, depth first: each execution is played again from the beginning, up to the latest choice
/// that has an alternative. A state that was there before is not explored again: what is in memory, and what each thread has
/// read so far, which is all that the future of a thread that computes depends on.
package final class Explorer {
  /// The one that explores: models run on one thread of the process.
  // Proof: set and read by the main thread alone; the threads of a model are coroutines on it.
  nonisolated(unsafe) static var current: Explorer?

  private struct Choice {
    var index: Int
    let count: Int
  }

  var memory = SharedMemory()
  private var threads: [ModelThread] = []
  private var started = 0
  /// The thread of the model that runs; `parent` before the first and after the last.
  private var running = Explorer.parent
  private var path: [Choice] = []
  private var visited: Set<UInt64> = []
  private var candidates: [Int] = []
  private var violation: String?
  private var isTracing = false
  private var trace: [String] = []
  private(set) package var states = 0
  private(set) package var executions = 0
  /// The model is being brought to its end: what it finds does not count, and who loops ends.
  private(set) package var isOver = false
  /// What was done where, in the executions so far.
  private(set) var accesses: [Site: AccessKind] = [:]
  /// What is weaker than it stands in the source.
  private let weakened: (site: Site, how: Weakening)?
  private let names = Names()
  /// By thread and location: what it has read or written there last. A function of what it has read.
  private var seen: [[Int: UInt64]] = []
  private var regions: [Region] = []

  static let parent = View.threads - 1
  static let stateLimit = 20_000_000

  package init(weakening weakened: (Site, Weakening)? = nil) { self.weakened = weakened }

  // MARK: Exploring

  /// Explores all of it, or as far as the first finding.
  package func explore(_ model: Model) -> Finding? {
    Self.current = self
    defer { Self.current = nil }
    path = []
    visited = []
    while true {
      executions += 1
      run(model)
      if let found = violation {
        // Once more, to see how.
        isTracing = true
        run(model)
        return Finding(what: found, trace: trace)
      }
      while let last = path.last, last.index + 1 == last.count { path.removeLast() }
      guard !path.isEmpty else { return nil }
      path[path.count - 1].index += 1
    }
  }

  private func run(_ model: Model) {
    memory.reset()
    names.restart()
    regions.removeAll(keepingCapacity: true)
    seen = Array(repeating: [:], count: View.threads)
    violation = nil
    isOver = false
    trace = []
    started = 0
    running = Self.parent
    memory.tick(Self.parent)
    let finish = model.make(self)
    for index in 0..<started {
      memory.inherit(index, from: Self.parent)
      memory.tick(index)
      guard weakened != nil else { continue }
      // It goes on from what was done before.
      for (location, messages) in memory.locations.enumerated() { seen[index][location] = messages.last?.value }
    }
    memory.tick(Self.parent)
    for index in 0..<started { resume(index) }
    var step = 0
    while violation == nil {
      // All that may happen next: of each thread, each outcome of what it is about to do; of a store that comes at once, its own.
      var total = 0
      let first = threads[0..<started].firstIndex { $0.pending?.comesAtOnce == true }
      for index in 0..<started {
        guard let operation = threads[index].pending, first == nil || first == index else {
          threads[index].choices = 0
          continue
        }
        memory.outcomes(operation, index, &candidates)
        threads[index].choices = candidates.count
        total += candidates.count
      }
      if total == 0 {
        conclude(finish)
        break
      }
      var choice = 0
      if total > 1 {
        if step < path.count {
          choice = path[step].index
        } else {
          guard visited.insert(memory.hash(started)).inserted else { break }
          states += 1
          if states > Self.stateLimit { violation = "more than \(Self.stateLimit) states: the model is too large" }
          path.append(Choice(index: 0, count: total))
        }
        step += 1
      }
      var index = 0
      while choice >= threads[index].choices {
        choice -= threads[index].choices
        index += 1
      }
      guard let operation = threads[index].pending else { break }
      memory.outcomes(operation, index, &candidates)
      go(index, operation, outcome: candidates[choice])
    }
    bringToAnEnd()
  }

  private func go(_ index: Int, _ operation: Operation, outcome: Int) {
    let result = memory.perform(operation, index, outcome: outcome)
    memory.threads[index].history.add(result.value &<< 1 | (result.isDone ? 1 : 0))
    if isTracing { note(index, operation, result) }
    threads[index].result = result
    if weakened != nil, let location = operation.location {
      // Of a store the message is the latest that this thread knows of.
      seen[index][location] = memory.locations[location][memory.threads[index].current[location]].value
    }
    resume(index)
  }

  private func resume(_ index: Int) {
    running = index
    threads[index].resume()
    running = Self.parent
  }

  /// Nobody can go on: the model says whether it should be so.
  private func conclude(_ finish: () -> Void) {
    for index in 0..<started {
      if case .lock(let location) = threads[index].pending {
        report("\(threads[index].name) waits for ever for \(names[location])")
      }
    }
    for index in 0..<started { memory.inherit(Self.parent, from: index) }
    finish()
  }

  /// Lets each thread run on, in turn and by the latest values, until it returns: so nothing that it holds is lost.
  private func bringToAnEnd() {
    isOver = true
    var steps = 0
    while true {
      var isAnyLeft = false
      for index in 0..<started {
        guard let operation = threads[index].pending else { continue }
        isAnyLeft = true
        memory.outcomes(operation, index, &candidates)
        if let outcome = candidates.first {
          threads[index].result = memory.perform(operation, index, outcome: outcome)
          resume(index)
        } else if case .wait = operation {
          threads[index].result = (0, false)
          resume(index)
        }
      }
      guard isAnyLeft else { return }
      steps += 1
      precondition(steps < 10_000, "a thread of the model does not look whether it is over")
    }
  }

  // MARK: What models use

  /// Starts a thread of the model.
  package func thread(_ name: String, _ body: @escaping () -> Void) {
    if started == threads.count { threads.append(ModelThread()) }
    threads[started].prepare(name, body)
    started += 1
  }

  /// True when the thread waits for something that nobody signals: asked at the end.
  package func isAsleep(_ name: String) -> Bool {
    threads[0..<started].contains { $0.name == name && $0.pending != nil }
  }

  /// Something is wrong.
  package func report(_ what: String) {
    if violation == nil, !isOver { violation = what }
  }

  /// What must be so.
  package func require(_ condition: Bool, _ what: @autoclosure () -> String) {
    if !condition { report(what()) }
  }

  // MARK: What the accesses use

  func location(_ key: Names.Key, initially value: UInt64) -> Int {
    let index = names.location(key)
    while memory.locations.count <= index { memory.locations.append([]) }
    if memory.locations[index].isEmpty {
      memory.locations[index].append(SharedMemory.Message(value: value, view: View()))
    }
    return index
  }

  func objectKey(_ what: @autoclosure () -> String) -> Names.Key {
    precondition(running == Self.parent, "what threads share is made before they start")
    return names.object(what())
  }

  /// For an access of this size at this offset: the ranges of bytes that are locations of their own, which it reaches as far as it
  /// overlaps them, first the one whose load says that the others are there. None for an access that is a location's by itself.
  package typealias Fields = (_ offset: Int, _ size: Int) -> [Range<Int>]

  private struct Region {
    let start: UInt
    let bytes: UInt
    let name: String
    let fields: Fields?
  }

  /// Memory that the threads share and that C's atomics reach by address: known by where it begins in each execution.
  ///
  /// An access to several fields is one to each of them, the leading one's first in a load and last in a store, in no order but
  /// that. Machines do it at once: what holds here holds there. A store into a part of a field leaves the rest as the thread has
  /// written it last: a field is one thread's to write at a time.
  package func share(_ start: UnsafeRawPointer, bytes: Int, _ name: String, fields: Fields? = nil) {
    precondition(running == Self.parent, "what threads share is made before they start")
    regions.append(Region(start: UInt(bitPattern: start), bytes: UInt(bytes), name: name, fields: fields))
  }

  private func region(of address: UnsafeRawPointer) -> (index: Int, offset: Int) {
    let address = UInt(bitPattern: address)
    guard let index = regions.firstIndex(where: { address &- $0.start < $0.bytes }) else {
      preconditionFailure("an access to memory that the model does not share")
    }
    return (index, Int(address - regions[index].start))
  }

  func wordKey(_ address: UnsafeRawPointer, size: Int) -> Names.Key {
    let (index, offset) = region(of: address)
    return .word(region: index, name: regions[index].name, offset: offset, size: size)
  }

  /// The offset of an address in its memory, and the fields that an access reaches.
  func fields(of address: UnsafeRawPointer, size: Int) -> (offset: Int, fields: [Range<Int>]) {
    let (index, offset) = region(of: address)
    return (offset, regions[index].fields?(offset, size) ?? [])
  }

  func makeCell() -> Int {
    memory.cells.append(SharedMemory.Cell(writer: running, written: memory.threads[running].current.clock(running)))
    return memory.cells.count - 1
  }

  func readCell(_ cell: Int, _ what: String) {
    if let other = memory.readCell(cell, running) { race(what, "reads", other) }
  }

  func writeCell(_ cell: Int, _ what: String) {
    if let other = memory.writeCell(cell, running) { race(what, "writes", other) }
  }

  private func race(_ what: String, _ how: String, _ other: Int) {
    guard running != Self.parent else { return report("\(what) is read at the end, and who wrote it is not seen") }
    report("a race: \(threads[running].name) \(how) \(what), which \(name(other)) uses")
  }

  private func name(_ thread: Int) -> String { thread == Self.parent ? "the parent" : threads[thread].name }

  /// Does it when it is this thread's turn.
  func perform(_ operation: Operation) -> (value: UInt64, isDone: Bool) {
    guard running != Self.parent else {
      memory.outcomes(operation, Self.parent, &candidates)
      guard let outcome = candidates.first else { preconditionFailure("nobody can wait before the threads start") }
      return memory.perform(operation, Self.parent, outcome: outcome)
    }
    let thread = threads[running]
    thread.pending = operation
    coroutine_yield()
    thread.pending = nil
    return thread.result
  }

  /// As `perform`, of what no other thread can see the difference of: no turn is waited for.
  func performAtOnce(_ operation: Operation) {
    memory.outcomes(operation, running, &candidates)
    if let outcome = candidates.first { _ = memory.perform(operation, running, outcome: outcome) }
  }

  /// What this thread has read or written there last: it does not look.
  func known(_ location: Int) -> UInt64 { seen[running][location] ?? memory.locations[location][0].value }

  /// What this thread knows to be there, without a look.
  func latest(_ location: Int) -> UInt64 {
    memory.locations[location][memory.threads[running].current[location]].value
  }

  func weakening(at site: Site, _ kind: AccessKind) -> Weakening? {
    guard running != Self.parent else { return nil }
    if let weakened { return weakened.site == site ? weakened.how : nil }
    accesses[site] = kind
    return nil
  }

  /// Each access of the executions so far.
  package var sites: [Site: AccessKind] { accesses }

  // MARK: Telling

  func rename(_ location: Int, _ what: String) { names[location] = what }

  private func note(_ index: Int, _ operation: Operation, _ result: (value: UInt64, isDone: Bool)) {
    let place = operation.location.map { names[$0] } ?? ""
    let who = threads[index].name
    switch operation {
    case .load(_, let ordering): trace.append("\(who): \(place) is \(result.value) (\(ordering))")
    case .store(_, let value, let ordering): trace.append("\(who): \(place) := \(value) (\(ordering))")
    case .update(_, let change, let operand, let ordering):
      trace.append("\(who): \(place) was \(result.value), \(change) \(operand) (\(ordering))")
    case .compareExchange(_, let expected, let desired, let success, _, _):
      trace.append(
        "\(who): \(place) was \(result.value), "
          + (result.isDone ? "is \(desired) (\(success))" : "and not \(expected)"))
    case .fence(let ordering): trace.append("\(who): fence (\(ordering))")
    case .lock: trace.append("\(who): takes \(place)")
    case .wait: trace.append("\(who): woken by \(place)")
    case .signal: trace.append("\(who): signals \(place)")
    }
  }
}
