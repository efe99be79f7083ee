/// Memory as C11 orders it, by views: the machine of "promising semantics" (Kang and others, 2017) without its promises, which is
/// RC11 without load buffering.
///
/// Each location keeps all that was written to it, in its order of modification. A thread may read whatever is no older than what
/// it knows of; a message carries what its writer made known with it. What an acquiring read learns counts at once, what a relaxed
/// one learns from the next acquiring fence on. A release sequence is a chain of read-modify-writes, as in C++20. Sequentially
/// consistent accesses and fences happen in the order in which they are done here, and `order` is what that order has fixed.
///
/// What this leaves out: a store before an earlier load of the same thread (load buffering), and what C++20 allows for POWER alone.
struct SharedMemory {
  struct Message {
    var value: UInt64
    var view: View
    /// It came from a read-modify-write of the message before it: nothing comes between.
    var isAttached = false
  }

  struct Thread {
    var current = View()
    var acquirable = View()
    var released = View()
    /// A hash of all that it has read: what a deterministic thread does next.
    var history = StateHash()
    var mayFail = true
  }

  /// What is not atomic.
  struct Cell {
    var writer = 0
    var written: UInt8 = 0
    var read = SIMD8<UInt8>()
  }

  var locations: [[Message]] = []
  var threads = [Thread](repeating: Thread(), count: View.threads)
  var order = View()
  var cells: [Cell] = []

  mutating func reset() {
    for index in locations.indices { locations[index].removeAll(keepingCapacity: true) }
    for index in threads.indices { threads[index] = Thread() }
    order = View()
    cells.removeAll(keepingCapacity: true)
  }

  /// A thread knows all that another has done so far.
  mutating func inherit(_ thread: Int, from other: Int) {
    threads[thread].current.join(threads[other].current)
    threads[thread].acquirable.join(threads[thread].current)
  }

  mutating func tick(_ thread: Int) {
    threads[thread].current.tick(thread)
    threads[thread].acquirable.join(threads[thread].current)
  }

  // MARK: What may happen

  private func oldest(_ location: Int, _ thread: Int, _ ordering: Ordering) -> Int {
    let known = threads[thread].current[location]
    return ordering == .sequentiallyConsistent ? max(known, order[location]) : known
  }

  private func isFree(after position: Int, in messages: [Message]) -> Bool {
    position + 1 == messages.count || !messages[position + 1].isAttached
  }

  /// The outcomes of an operation: for each a position that is read, or, of a store, that it takes; the latest first. Failures
  /// of a compare and exchange are below zero.
  func outcomes(_ operation: Operation, _ thread: Int, _ found: inout [Int]) {
    found.removeAll(keepingCapacity: true)
    switch operation {
    case .load(let location, let ordering):
      let low = oldest(location, thread, ordering)
      for position in (low..<locations[location].count).reversed() { found.append(position) }
    case .store(let location, _, let ordering):
      let messages = locations[location]
      for position in (oldest(location, thread, ordering)..<messages.count).reversed()
      where isFree(after: position, in: messages) { found.append(position + 1) }
    case .update(let location, _, _, let ordering):
      let messages = locations[location]
      for position in (oldest(location, thread, ordering)..<messages.count).reversed()
      where isFree(after: position, in: messages) { found.append(position) }
    case .compareExchange(let location, let expected, _, let success, let failure, let isWeak):
      let messages = locations[location]
      for position in (0..<messages.count).reversed() {
        if messages[position].value == expected {
          if position >= oldest(location, thread, success), isFree(after: position, in: messages) {
            found.append(position)
          }
          if isWeak, threads[thread].mayFail, position >= oldest(location, thread, failure) {
            found.append(-1 - position)
          }
        } else if position >= oldest(location, thread, failure) {
          found.append(-1 - position)
        }
      }
    case .fence: found.append(0)
    case .lock(let location):
      // Free while even: what is read tells whose turn it was.
      let last = locations[location].count - 1
      if locations[location][last].value.isMultiple(of: 2) { found.append(last) }
    case .wait(let location):
      let last = locations[location].count - 1
      if locations[location][last].value != 0 { found.append(last) }
    case .signal(let location): found.append(locations[location].count - 1)
    }
  }

  // MARK: Doing it

  /// Does it; returns what was read, and whether a compare and exchange succeeded.
  mutating func perform(_ operation: Operation, _ thread: Int, outcome: Int) -> (value: UInt64, isDone: Bool) {
    switch operation {
    case .load(let location, let ordering):
      return (read(location, thread, outcome, ordering), true)
    case .store(let location, let value, let ordering):
      write(location, thread, value, at: outcome, ordering, after: nil)
      return (0, true)
    case .update(let location, let change, let operand, let ordering):
      let old = read(location, thread, outcome, ordering)
      let new =
        switch change {
        case .exchange: operand
        case .add: old &+ operand
        case .subtract: old &- operand
        }
      write(location, thread, new, at: outcome + 1, ordering, after: locations[location][outcome].view)
      return (old, true)
    case .compareExchange(let location, let expected, let desired, let success, let failure, _):
      guard outcome >= 0 else {
        let old = read(location, thread, -1 - outcome, failure)
        if old == expected { threads[thread].mayFail = false }
        return (old, false)
      }
      let old = read(location, thread, outcome, success)
      write(location, thread, desired, at: outcome + 1, success, after: locations[location][outcome].view)
      return (old, true)
    case .fence(let ordering):
      fence(thread, ordering)
      return (0, true)
    case .lock(let location):
      let old = read(location, thread, outcome, .acquiring)
      write(location, thread, old + 1, at: outcome + 1, .acquiring, after: locations[location][outcome].view)
      return (old, true)
    case .wait(let location):
      // The kernel's own lock orders who signals and who waits.
      let old = read(location, thread, outcome, .acquiringAndReleasing)
      let view = locations[location][outcome].view
      write(location, thread, 0, at: outcome + 1, .acquiringAndReleasing, after: view)
      return (old, true)
    case .signal(let location):
      _ = read(location, thread, outcome, .acquiringAndReleasing)
      let view = locations[location][outcome].view
      write(location, thread, 1, at: outcome + 1, .acquiringAndReleasing, after: view)
      return (0, true)
    }
  }

  private mutating func read(_ location: Int, _ thread: Int, _ position: Int, _ ordering: Ordering) -> UInt64 {
    let message = locations[location][position]
    threads[thread].current[location] = max(threads[thread].current[location], position)
    if ordering.acquires { threads[thread].current.join(message.view) }
    threads[thread].acquirable.join(message.view)
    threads[thread].acquirable.join(threads[thread].current)
    return message.value
  }

  private mutating func write(
    _ location: Int, _ thread: Int, _ value: UInt64, at position: Int, _ ordering: Ordering, after sequence: View?
  ) {
    if position < locations[location].count { makeRoom(location, position) }
    threads[thread].current[location] = position
    threads[thread].acquirable.join(threads[thread].current)
    var view = ordering.releases ? threads[thread].current : threads[thread].released
    if let sequence { view.join(sequence) }
    view[location] = position
    let message = Message(value: value, view: view, isAttached: sequence != nil)
    locations[location].insert(message, at: position)
    if ordering == .sequentiallyConsistent { order[location] = max(order[location], position) }
    tick(thread)
  }

  /// A store that is not the latest: what lies behind it moves up.
  private mutating func makeRoom(_ location: Int, _ position: Int) {
    for index in threads.indices {
      threads[index].current.shift(location, from: position)
      threads[index].acquirable.shift(location, from: position)
      threads[index].released.shift(location, from: position)
    }
    order.shift(location, from: position)
    for other in locations.indices {
      for index in locations[other].indices { locations[other][index].view.shift(location, from: position) }
    }
  }

  private mutating func fence(_ thread: Int, _ ordering: Ordering) {
    if ordering.acquires { threads[thread].current = threads[thread].acquirable }
    if ordering == .sequentiallyConsistent {
      threads[thread].current.joinLocations(order)
      order.joinLocations(threads[thread].current)
      threads[thread].acquirable.join(threads[thread].current)
    }
    if ordering.releases {
      threads[thread].released = threads[thread].current
      tick(thread)
    }
  }

  // MARK: What is not atomic

  /// Who reads it without knowing of the last write: a race.
  mutating func readCell(_ cell: Int, _ thread: Int) -> Int? {
    let state = cells[cell]
    cells[cell].read[thread] = threads[thread].current.clock(thread)
    return state.writer != thread && threads[thread].current.clock(state.writer) < state.written ? state.writer : nil
  }

  /// Who writes it without knowing of the last write and of all reads: a race.
  mutating func writeCell(_ cell: Int, _ thread: Int) -> Int? {
    let state = cells[cell]
    cells[cell].writer = thread
    cells[cell].written = threads[thread].current.clock(thread)
    if state.writer != thread, threads[thread].current.clock(state.writer) < state.written { return state.writer }
    for other in 0..<View.threads
    where other != thread && threads[thread].current.clock(other) < state.read[other] { return other }
    return nil
  }

  // MARK: One number for all of it

  func hash(_ running: Int) -> UInt64 {
    var hash = StateHash()
    for messages in locations {
      hash.add(UInt64(messages.count))
      for message in messages {
        hash.add(message.value &<< 1 | (message.isAttached ? 1 : 0))
        hash.add(message.view)
      }
    }
    for thread in threads[0..<running] {
      hash.add(thread.current)
      hash.add(thread.acquirable)
      hash.add(thread.released)
      hash.add(thread.history.value)
    }
    hash.add(order)
    for cell in cells {
      hash.add(UInt64(cell.writer) &<< 8 | UInt64(cell.written))
      hash.add(unsafeBitCast(cell.read, to: UInt64.self))
    }
    return hash.value
  }
}
