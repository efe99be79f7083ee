import CNetdevSystem
import Glibc
import LibeventConcurrency
import Synchronization
import TestSupport
import Testing

/// An actor on a loop that counts, for tests.
private actor Counter {
  let loop: LoopExecutor
  var value = 0
  init(_ loop: LoopExecutor) { self.loop = loop }
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
  func add() -> Bool {
    value += 1
    return loop.isOnLoop
  }
  // Not pthread_self: it is declared as constant for a thread, and an optimised async function keeps its first answer.
  func thread() -> String {
    var name = [CChar](repeating: 0, count: 64)
    let length = unsafe readlink("/proc/thread-self", &name, name.count - 1)
    return String(decoding: name.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

@Suite(.timeLimit(.minutes(2))) struct LoopExecutorTests {
  @Test func `an actor on a loop runs on the loop's thread and nowhere else`() async throws {
    let loop = try LoopExecutor(name: "test")
    let counter = Counter(loop)
    #expect(await counter.add())
    let first = await counter.thread()
    let second = await counter.thread()
    #expect(first == second)
    // Another loop is another thread. (This function's own thread says nothing: an optimised build need not come back from
    // the loop for what touches nothing isolated.)
    let other = Counter(try LoopExecutor(name: "other"))
    #expect(await other.thread() != first)
    #expect(await other.add())
  }

  @Test func `jobs from many threads all run, each once`() async throws {
    let loop = try LoopExecutor(name: "test")
    let counter = Counter(loop)
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<64 {
        group.addTask { for _ in 0..<1000 { _ = await counter.add() } }
      }
    }
    #expect(await counter.value == 64_000)
  }

  @Test func `a loop with nothing to do sleeps, and wakes for each lone job`() async throws {
    let loop = try LoopExecutor(name: "test")
    let counter = Counter(loop)
    let scope = LoopScope(loop)
    for _ in 0..<200 {
      _ = await counter.add()
      try await Task.sleep(for: .microseconds(200))
    }
    let sleeps = await scope.run { _ in loop.statistics.sleeps }
    #expect(sleeps > 100)
  }

  @Test func `a timer fires once, not early, and not after it was unscheduled`() async throws {
    let loop = try LoopExecutor(name: "test")
    let scope = LoopScope(loop)
    let fired = Atomic<Int>(0)
    let early = Atomic<Int>(0)
    let gate = Gate()
    let holder = try await TimerHolder.make(scope, loop) { [start = netdev_monotonic_nanoseconds()] in
      fired.add(1, ordering: .relaxed)
      if netdev_monotonic_nanoseconds() - start < 20_000_000 { early.add(1, ordering: .relaxed) }
      gate.open()
    }
    await holder.scheduleAndWait(.milliseconds(20), gate)
    #expect(fired.load(ordering: .relaxed) == 1)
    #expect(early.load(ordering: .relaxed) == 0)
    await holder.scheduleThenUnschedule(.milliseconds(1))
    try await Task.sleep(for: .milliseconds(30))
    #expect(fired.load(ordering: .relaxed) == 1)
  }

  @Test func `a busy loop goes on turning although a source's handler leaves its descriptor ready`() async throws {
    let loop = try LoopExecutor(name: "test")
    let descriptor = netdev_eventfd_create()
    defer { close(descriptor) }
    _ = netdev_eventfd_signal(descriptor)
    let seen = Atomic<Int>(0)
    let holder = SourceHolder(loop)
    // The handler asks for a turn and leaves the rest to it: the loop is busy, and polls every so many turns.
    try await holder.watch(descriptor) {
      seen.add(1, ordering: .relaxed)
      loop.requestTurn()
    }
    while seen.load(ordering: .relaxed) < 100 { try await Task.sleep(for: .milliseconds(1)) }
    for _ in 0..<200 { await holder.nudge() }
    await holder.suspend()
    #expect(seen.load(ordering: .relaxed) >= 100)
  }

  @Test func `a source fires while its descriptor is ready and is silent once suspended`() async throws {
    let loop = try LoopExecutor(name: "test")
    let descriptor = netdev_eventfd_create()
    defer { close(descriptor) }
    let seen = Atomic<Int>(0)
    let holder = SourceHolder(loop)
    try await holder.watch(descriptor) {
      seen.add(Int(netdev_eventfd_drain(descriptor)), ordering: .relaxed)
    }
    for expected in 1...50 {
      _ = netdev_eventfd_signal(descriptor)
      while seen.load(ordering: .relaxed) < expected { try await Task.sleep(for: .microseconds(50)) }
    }
    await holder.suspend()
    _ = netdev_eventfd_signal(descriptor)
    _ = await Counter(loop).add()
    #expect(seen.load(ordering: .relaxed) == 50)
  }

  @Test func `calls that belong on the loop throw elsewhere instead of racing`() throws {
    let loop = try LoopExecutor(name: "test")
    #expect(throws: LoopError.self) { _ = try loop.makeTimer {} }
    #expect(throws: LoopError.self) { _ = try loop.makeSource(descriptor: 0, readiness: .readable) {} }
  }

  @Test(arguments: [1000, -1, Int.max, Int.min])
  func `a CPU that does not exist is refused with an error that names it`(_ cpu: Int) {
    #expect { try LoopExecutor(name: "test", cpu: cpu) } throws: { error in
      (error as? LoopError)?.operation.hasSuffix("CPU \(cpu)") == true
    }
  }

  /// Blocked, they would end the process before its own handlers, or the runtime's backtrace, could say where it was.
  @Test func `a loop's thread takes the signals of its own mistakes, and no others`() async throws {
    @Sendable func blocked() -> [CInt] {
      var set = sigset_t()
      unsafe pthread_sigmask(SIG_SETMASK, nil, &set)
      return (1..<32).filter { unsafe sigismember(&set, $0) == 1 }
    }
    let faults = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP]
    let loop = try LoopExecutor(name: "test")
    let found = await LoopScope(loop).run { _ in blocked() }
    #expect(found == (1..<32).filter { !faults.contains($0) && $0 != SIGKILL && $0 != SIGSTOP })
  }

  @Test func `loops come and go without leaving threads or descriptors`() async throws {
    let before = openDescriptors()
    for _ in 0..<100 {
      let loop = try LoopExecutor(name: "test")
      _ = await Counter(loop).add()
    }
    // A loop whose last reference went in its own job ends by itself a moment later.
    for _ in 0..<500 where openDescriptors() > before + 4 { try await Task.sleep(for: .milliseconds(10)) }
    #expect(openDescriptors() <= before + 4)
  }

  @Test func `a task that prefers the loop's task executor stays on the loop`() async throws {
    let loop = try LoopExecutor(name: "test")
    let executor = LoopTaskExecutor(loop: loop)
    let onLoop = await Task(executorPreference: executor) {
      var all = loop.isOnLoop
      for _ in 0..<100 {
        await Task.yield()
        all = all && loop.isOnLoop
      }
      return all
    }.value
    #expect(onLoop)
  }

  @Test func `a turn ends although its jobs never stop, so timers and hooks are served`() async throws {
    let loop = try LoopExecutor(name: "test")
    let scope = LoopScope(loop)
    let executor = LoopTaskExecutor(loop: loop)
    let busy = Task(executorPreference: executor) { while !Task.isCancelled { await Task.yield() } }
    let gate = Gate()
    let holder = try await TimerHolder.make(scope, loop) { gate.open() }
    await holder.scheduleAndWait(.milliseconds(1), gate)
    busy.cancel()
    await busy.value
  }
}

/// Keeps a timer on its loop.
private actor TimerHolder {
  let loop: LoopExecutor
  private var timer: LoopTimer?
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
  private init(_ loop: LoopExecutor) { self.loop = loop }
  static func make(
    _ scope: LoopScope, _ loop: LoopExecutor, _ handler: @escaping @Sendable () -> Void
  ) async throws -> TimerHolder {
    let holder = TimerHolder(loop)
    try await holder.start(handler)
    return holder
  }
  private func start(_ handler: @escaping @Sendable () -> Void) throws { timer = try loop.makeTimer(handler: handler) }
  func scheduleAndWait(_ delay: Duration, _ gate: Gate) async {
    timer?.schedule(after: delay)
    await gate.pass()
  }
  func scheduleThenUnschedule(_ delay: Duration) {
    timer?.schedule(after: delay)
    timer?.unschedule()
  }
}

/// Keeps a source on its loop.
private actor SourceHolder {
  let loop: LoopExecutor
  private var source: LoopSource?
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
  init(_ loop: LoopExecutor) { self.loop = loop }
  func watch(_ descriptor: CInt, _ handler: @escaping @Sendable () -> Void) throws {
    source = try loop.makeSource(descriptor: descriptor, readiness: .readable, handler: handler)
    source?.resume()
  }
  func suspend() { source?.suspend() }
  func nudge() { loop.requestTurn() }
}
