internal import CNetdevSystem
internal import CSimulation
internal import LibeventConcurrency
internal import Synchronization
internal import Virtio

/// The thread that a world lives on, and the one world of the process.
enum SimulationThread {
  /// The world of the process, for threads that ask whose a job is.
  private static let world = Mutex<WorldSchedule?>(nil)
  /// Held while there is one: another one waits.
  private static let turn = Mutex<Void>(())

  /// Whether worlds have taken over what the runtime does; false where that cannot be done.
  static let isInstalled = unsafe simulation_install { job in
    guard let job = unsafe job else { return false }
    if let world = SimulationThread.world.withLock({ $0 }), unsafe world.take(stranger: job) { return true }
    guard let seed = over.withLock({ unsafe $0.seed(of: simulation_task(job)) }) else { return false }
    let thread = SimulationThread.description
    unsafe simulation_tell(seed, "is over, and \(thread) resumed a task of it, which does not go on")
    return true
  }

  /// Tasks of worlds that are over, so that nobody goes on with one in the process' own time; those of the last worlds, as who resumes
  /// one does so soon or never.
  private struct Over {
    private var seeds: [UInt64: UInt64] = [:]
    private var worlds: [Set<UInt64>] = []

    func seed(of task: UInt64) -> UInt64? { seeds.isEmpty ? nil : seeds[task] }

    mutating func add(_ tasks: Set<UInt64>, of seed: UInt64) {
      for task in tasks { seeds[task] = seed }
      worlds.append(tasks)
      guard worlds.count > 64 else { return }
      for task in worlds.removeFirst() { seeds[task] = nil }
    }
  }

  private static let over = Mutex(Over())

  /// The world of the calling thread.
  static var current: WorldSchedule? { LoopWorlds.current as? WorldSchedule }

  /// The calling thread in words; one of a world's, by the world.
  static var description: String {
    if let current { return "the world of seed \(current.seed)" }
    var bytes = [CChar](repeating: 0, count: 16)
    unsafe bytes.withUnsafeMutableBufferPointer { unsafe simulation_thread_name($0.baseAddress) }
    let name = String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // Dispatch's, of which the system keeps the end of a longer name.
    let isOfPool = ["-qos", "-qos.overcommit"].contains { name.hasSuffix($0) }
    // A thread that was begun on a world's has its name, until it takes another one.
    let own = name == threadName ? "a thread that the program began" : "the thread '\(name)'"
    let words = isOfPool ? "a thread of the runtime's pool" : own
    return "\(words) (number \(simulation_thread_number()))"
  }

  private static let threadName = "simulation"

  /// Runs `body` on a new thread; false when there is none to be had.
  static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    guard let thread = OwnThread(threadName, body) else { return false }
    thread.detach()
    return true
  }

  /// Makes the calling thread the world's, and the world the process', for the time of `body`.
  static func with(_ schedule: WorldSchedule, _ body: () -> Void) {
    // By itself: a thread that the program begins has the name that this one has then.
    unsafe simulation_name_thread(threadName)
    turn.withLock { _ in
      world.withLock { $0 = schedule }
      let context = unsafe Unmanaged.passUnretained(schedule).toOpaque()
      var calls = unsafe simulation_thread(
        context: context,
        enqueue: { context, job in
          guard let context = unsafe context, let job = unsafe job else { return }
          unsafe SimulationThread.schedule(context).enqueue(job)
        },
        after: { context, delay, work, argument in
          guard let context = unsafe context, let work = unsafe work else { return }
          unsafe SimulationThread.schedule(context).call(after: delay, work, argument)
        },
        main: { context in
          guard let context = unsafe context else { return }
          unsafe SimulationThread.schedule(context).find("an escape: a task of the world went to the main actor")
        },
        dispatch: { context, function in
          guard let context = unsafe context, let function = unsafe function else { return }
          unsafe SimulationThread.schedule(context).noteDispatch(String(cString: function))
        },
        now: { context in
          guard let context = unsafe context else { return 0 }
          return unsafe SimulationThread.schedule(context).now
        })
      unsafe withUnsafePointer(to: &calls) { calls in
        unsafe simulation_enter(calls)
        simulation_watch_begin(schedule.seed, UInt32(clamping: schedule.limits.stepMilliseconds))
        unsafe simulated_kernel_begin(
          { context in
            guard let context = unsafe context else { return }
            unsafe SimulationThread.schedule(context).noteNews()
          },
          { context, what in
            guard let context = unsafe context, let what = unsafe what else { return }
            unsafe SimulationThread.schedule(context).noteLack(of: String(cString: what))
          }, context)
        netdev_fault_set_place { SimulationThread.current?.hold() }
        unsafe netdev_fault_set_chooser { call, cuts in unsafe SimulationThread.current?.choose(call, cuts: cuts) ?? 0 }
        #if Testing
        RingWatch.listen { event in SimulationThread.hear(event) }
        #endif
        LoopWorlds.with(schedule, body)
        netdev_fault_set_chooser(nil)
        netdev_fault_set_place(nil)
        simulated_kernel_end()
        #if Testing
        RingWatch.listen(nil)
        #endif
        simulation_watch_end()
        simulation_enter(nil)
      }
      over.withLock { $0.add(schedule.arrivals.withLock { $0.tasks }, of: schedule.seed) }
      world.withLock { $0 = nil }
    }
  }

  #if Testing
  /// A ring's memory goes when its last holder does, on whatever thread.
  private static func hear(_ event: RingEvent) {
    if let current { return current.hear(event) }
    guard case .gone = event else { return }
    world.withLock { $0 }?.hear(event)
  }
  #endif

  private static func schedule(_ context: UnsafeMutableRawPointer) -> WorldSchedule {
    // What `with` has put there, and holds.
    unsafe Unmanaged<WorldSchedule>.fromOpaque(context).takeUnretainedValue()
  }
}
