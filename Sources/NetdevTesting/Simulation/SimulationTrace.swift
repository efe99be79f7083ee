/// What happened in a world, in order: a fingerprint of all of it, and the last events in words.
struct SimulationTrace {
  /// One thing that happened.
  enum Event {
    /// A job of the pool ran; its task's number in this world, 0 for work of Dispatch's.
    case job(task: Int)
    /// A loop made a turn of so many jobs at most.
    case turned(loop: Int, budget: Int)
    /// A loop made a turn, and is about to sleep.
    case hesitated(loop: Int, budget: Int)
    /// A loop made a turn and fell asleep; with a budget of 0, after a turn before.
    case slept(loop: Int, budget: Int)
    /// A loop was about to sleep, and saw that something had come.
    case stayed(loop: Int)
    /// A loop woke up, without any reason or for one.
    case woke(loop: Int, isVain: Bool)
    /// A loop has woken up, and does not say so yet.
    case stirred(loop: Int, isVain: Bool)
    /// What shall wake a loop reaches it.
    case reached(loop: Int)
    /// A loop ended.
    case ended(loop: Int)
    /// A loop's source fired.
    case source(loop: Int, number: Int)
    /// A loop's timer fired.
    case timer(loop: Int, number: Int)
    /// Somebody's turn or job is held up while others go on.
    case held
    /// A word of the program's or of a device's.
    case note(String)
  }

  private let limit: Int
  private var kept: [(time: UInt64, step: UInt64, event: Event)] = []
  /// Where the oldest one lies that is kept.
  private var oldest = 0
  private(set) var fingerprint: UInt64 = 0xcbf2_9ce4_8422_2325
  private var names: [String] = []
  private var tasks: [Int: String] = [:]

  /// - Parameter limit: events that are kept for reading.
  init(limit: Int) { self.limit = max(1, limit) }

  /// Numbers a loop.
  mutating func add(loop name: String) -> Int {
    names.append(name)
    return names.count - 1
  }

  /// Names a task, which was numbered by the world.
  mutating func add(task number: Int, name: String) { tasks[number] = name }

  /// A task in words.
  func name(task number: Int) -> String { "task \(number)" + (tasks[number].map { " '\($0)'" } ?? "") }

  mutating func note(_ event: Event, at time: UInt64, step: UInt64) {
    mix(time)
    switch event {
    case .job(let task): mix(1, task)
    case .turned(let loop, let budget): mix(2, loop, budget)
    case .slept(let loop, let budget): mix(3, loop, budget)
    case .woke(let loop, let isVain): mix(4, loop, isVain ? 1 : 0)
    case .ended(let loop): mix(5, loop)
    case .source(let loop, let number): mix(6, loop, number)
    case .timer(let loop, let number): mix(7, loop, number)
    case .held: mix(8)
    case .note(let text): mix(9, text: text)
    case .hesitated(let loop, let budget): mix(10, loop, budget)
    case .stayed(let loop): mix(11, loop)
    case .stirred(let loop, let isVain): mix(12, loop, isVain ? 1 : 0)
    case .reached(let loop): mix(13, loop)
    }
    if kept.count < limit {
      kept.append((time, step, event))
    } else {
      kept[oldest] = (time, step, event)
      oldest = (oldest + 1) % limit
    }
  }

  /// The events that are kept, a line each.
  var lines: [String] { (kept[oldest...] + kept[..<oldest]).map { line($0.time, $0.step, $0.event) } }

  private func line(_ time: UInt64, _ step: UInt64, _ event: Event) -> String {
    let words =
      switch event {
      case .job(0): "pool: a call of Dispatch's"
      case .job(let task): "pool: \(name(task: task))"
      case .turned(let loop, let budget): "\(names[loop]): a turn of \(budget) jobs at most, and goes on"
      case .hesitated(let loop, let budget): "\(names[loop]): a turn of \(budget) jobs at most, and is about to sleep"
      case .slept(let loop, 0): "\(names[loop]): sleeps"
      case .slept(let loop, let budget): "\(names[loop]): a turn of \(budget) jobs at most, and sleeps"
      case .stayed(let loop): "\(names[loop]): does not sleep, as something has come"
      case .woke(let loop, let isVain): "\(names[loop]): wakes up\(Self.reason(isVain))"
      case .stirred(let loop, let isVain): "\(names[loop]): wakes up\(Self.reason(isVain)), and does not say so yet"
      case .reached(let loop): "\(names[loop]): a wake-up reaches it"
      case .ended(let loop): "\(names[loop]): ends"
      case .source(let loop, let number): "\(names[loop]): source \(number) fires"
      case .timer(let loop, let number): "\(names[loop]): timer \(number) fires"
      case .held: "a turn is held up"
      case .note(let text): text
      }
    return "\(step) \(Self.microseconds(time)) \(words)"
  }

  private static func reason(_ isVain: Bool) -> String { isVain ? " for nothing" : "" }

  private static func microseconds(_ time: UInt64) -> String { "\(time / 1000).\(time % 1000 / 100)µs" }

  // FNV-1a, a word at a time.
  private mutating func mix(_ word: UInt64) { fingerprint = (fingerprint ^ word) &* 0x100_0000_01b3 }
  private mutating func mix(_ words: Int...) { for word in words { mix(UInt64(bitPattern: Int64(word))) } }
  private mutating func mix(_ kind: Int, text: String) {
    mix(kind)
    for byte in text.utf8 { mix(UInt64(byte)) }
  }
}
