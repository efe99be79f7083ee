internal import CSimulation
internal import LibeventConcurrency
internal import Synchronization
internal import Virtio

// MARK: - The end

extension WorldSchedule {
  /// What is still there when nothing goes on any more.
  func findLeftovers() {
    loops.removeAll { !$0.loop.isLive }
    for turned in loops {
      find(
        "the loop '\(turned.loop.name)' is still held at the end, \(turned.backend.timersSet) timers set: "
          + "close its device, let go of it and of its queues, and end the tasks that hold them")
    }
    let sleeping = wakeSleepers()
    if sleeping > 0 { find("\(sleeping) tasks still sleep at the end: cancel them, and wait for them") }
  }

  /// After everything else: descriptors that were opened in this world, and that nobody has closed.
  func findOpenDescriptors() {
    var kind = [CChar](repeating: 0, count: 128)
    var kinds: [String] = []
    var next: CInt = 0
    while true {
      let found = unsafe kind.withUnsafeMutableBufferPointer {
        unsafe simulation_descriptor_left(next, $0.baseAddress, $0.count)
      }
      guard found >= 0 else { break }
      kinds.append(String(decoding: kind.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
      next = found + 1
    }
    if !kinds.isEmpty { find("\(kinds.count) descriptors are left open: \(kinds.sorted().joined(separator: ", "))") }
  }

  /// Ends the sleeps that are longer than a world lasts, and counts those that somebody sleeps: of a cancelled one nothing comes.
  private func wakeSleepers() -> Int {
    var count = 0
    for sleep in delayed {
      let before = pool.count + awake.count + unreached.count
      guard case .call(let body, let argument) = sleep.work else { continue }
      LoopWorlds.outsideLoops { unsafe body(argument) }
      if pool.count + awake.count + unreached.count > before { count += 1 }
    }
    delayed = []
    return count
  }

  /// Lets go of everything: what is still held outside stays as it is and is never turned again. Who leaves something for such a loop
  /// all the same is told (`noteWake`).
  func end() {
    faults.rate = 0
    isEnded = true
    arrivals.withLock { $0.isOver = true }
    // What they let go of is the process's, not the world's.
    for case .blocking(let call) in pool { call() }
    incidents.end()
    listeners = []
    unended = []
    for turned in loops { turned.loop.retire() }
    loops = []
    pool = []
    delayed = []
    rings.withLock { $0 = RingMonitor() }
  }
}
