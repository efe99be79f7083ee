internal import CCoroutine

/// A thread of a model: code that runs until it is about to touch what others touch too, and then waits for its turn.
final class ModelThread {
  private(set) var name = ""
  private var body: () -> Void = {}
  private var coroutine: OpaquePointer?
  /// What it is about to do; nil when it has returned.
  var pending: Operation?
  /// What came of it.
  var result: (value: UInt64, isDone: Bool) = (0, true)
  /// Outcomes of what it is about to do, at this moment.
  var choices = 0

  func prepare(_ name: String, _ body: @escaping () -> Void) {
    self.name = name
    self.body = body
    pending = nil
    guard coroutine == nil else { return }
    // Kept for the process's life, as the coroutine is.
    let context = Unmanaged.passRetained(self).toOpaque()
    coroutine = coroutine_make(
      { context in
        guard let context else { return }
        let thread = Unmanaged<ModelThread>.fromOpaque(context).takeUnretainedValue()
        while true {
          thread.body()
          thread.body = {}
          coroutine_yield()
        }
      }, context)
  }

  func resume() { coroutine_resume(coroutine) }
}

/// Locations by what they stand for, the same in all executions; and how a trace calls them.
final class Names {
  enum Key: Hashable {
    /// The n-th object that was made.
    case object(Int)
    case word(region: Int, name: String, offset: Int, size: Int)
  }

  private var indices: [Key: Int] = [:]
  private var texts: [String] = []
  private var objects = 0
  private var waiting: [String] = []

  func restart() { objects = 0 }

  func object(_ what: @autoclosure () -> String) -> Key {
    objects += 1
    if waiting.count < objects { waiting.append(what()) }
    return .object(objects)
  }

  func location(_ key: Key) -> Int {
    if let index = indices[key] { return index }
    let index = texts.count
    precondition(index < View.locations, "a model has too many locations")
    indices[key] = index
    switch key {
    case .object(let number): texts.append(waiting[number - 1])
    case .word(_, let name, let offset, _): texts.append("\(name) at \(offset)")
    }
    return index
  }

  subscript(location: Int) -> String {
    get { texts[location] }
    set { texts[location] = newValue }
  }
}
