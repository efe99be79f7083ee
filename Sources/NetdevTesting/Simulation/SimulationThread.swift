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

  private static let isInstalled = unsafe simulation_install { job in
    guard let job = unsafe job, let world = SimulationThread.world.withLock({ $0 }) else { return false }
    return unsafe world.take(stranger: job)
  }

  /// The world of the calling thread.
  static var current: WorldSchedule? { LoopWorlds.current as? WorldSchedule }

  /// The calling thread's name.
  static var name: String {
    var name = [CChar](repeating: 0, count: 16)
    unsafe name.withUnsafeMutableBufferPointer { unsafe simulation_thread_name($0.baseAddress) }
    return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Runs `body` on a new thread; false when there is none to be had.
  static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    guard let thread = OwnThread("simulation", body) else { return false }
    thread.detach()
    return true
  }

  /// Makes the calling thread the world's, and the world the process', for the time of `body`. False when the runtime cannot be
  /// taken over.
  static func with(_ schedule: WorldSchedule, _ body: () -> Void) -> Bool {
    guard isInstalled else { return false }
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
        now: { context in
          guard let context = unsafe context else { return 0 }
          return unsafe SimulationThread.schedule(context).now
        })
      unsafe withUnsafePointer(to: &calls) { calls in
        unsafe simulation_enter(calls)
        unsafe simulated_kernel_begin(
          { context in
            guard let context = unsafe context else { return }
            unsafe SimulationThread.schedule(context).noteNews()
          }, context)
        netdev_fault_set_place { SimulationThread.current?.hold() }
        unsafe netdev_fault_set_chooser { call, cuts in unsafe SimulationThread.current?.choose(call, cuts: cuts) ?? 0 }
        #if Testing
        RingWatch.listener.withLock { $0 = { event in SimulationThread.hear(event) } }
        #endif
        LoopWorlds.with(schedule, body)
        netdev_fault_set_chooser(nil)
        netdev_fault_set_place(nil)
        simulated_kernel_end()
        #if Testing
        RingWatch.listener.withLock { $0 = nil }
        #endif
        simulation_enter(nil)
      }
      world.withLock { $0 = nil }
    }
    return true
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
