/// Those who listen to a device, by a stream each, until it is closed. It lies in its owner's state, under the lock that it is changed
/// under; nobody is told anything in there.
struct Listeners<Element: Sendable> {
  typealias Continuation = AsyncStream<Element>.Continuation

  private(set) var isFinished = false
  private var latest = 0
  private var present: [Int: Continuation] = [:]

  /// A stream for one more listener, of which the last `limit` elements that it has not fetched are kept.
  ///
  /// - Parameters:
  ///   - join: has `add(_:)` number it.
  ///   - leave: has `remove(_:)` forget that number, when nobody listens any more.
  static func stream(
    keeping limit: Int, join: (Continuation) -> Int?, leave: @escaping @Sendable (Int) -> Void
  ) -> AsyncStream<Element> {
    let (stream, continuation) = AsyncStream.makeStream(of: Element.self, bufferingPolicy: .bufferingNewest(limit))
    if let number = join(continuation) {
      continuation.onTermination = { _ in leave(number) }
    } else {
      continuation.finish()
    }
    return stream
  }

  /// Whoever is to be told of something.
  var all: [Continuation] { Array(present.values) }

  /// Its number; nil when the device is closed.
  mutating func add(_ listener: Continuation) -> Int? {
    guard !isFinished else { return nil }
    latest += 1
    present[latest] = listener
    return latest
  }

  mutating func remove(_ number: Int) { present[number] = nil }

  /// The device is closed: those whose streams are to be finished.
  mutating func finish() -> [Continuation] {
    defer { present = [:] }
    isFinished = true
    return all
  }
}
