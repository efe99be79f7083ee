internal import LibeventConcurrency
public import Netdev

// What was sent, in the order in which it was: for tests that ask for the next frame, whatever becomes of its buffer.
extension ScriptedDriver {
  /// Frames that are remembered until a test asks for them; beyond that the oldest are forgotten.
  public static var sentLimit: Int { 1024 }

  /// The next frame that was sent through a queue and that nobody has asked for yet; waits for one, by the clock of the queue's loop.
  ///
  /// ```swift
  /// await driver.deliver(question)
  /// let answer = try await driver.nextSent()
  /// ```
  ///
  /// The device may hold the frame's buffer or have released it: the bytes are those that it was given.
  ///
  /// - Parameters:
  ///   - queue: the queue pair.
  ///   - limit: how long it may take; generous by default, since only a test that fails waits for it.
  /// - Throws: `timedOut` when nothing was sent in time, `closed` before the device is opened, and when it is closed, also while this waits, `invalidConfiguration`
  ///   when it has no such queue pair, `cancelled`.
  public func nextSent(queue: Int = 0, within limit: Duration = .seconds(30)) async throws(NetworkDeviceError)
    -> [UInt8]
  {
    switch await next(queue, within: limit) {
    case .value(let frame?)?: return frame
    case .timedOut?:
      throw NetworkDeviceError(
        .timedOut, "nextSent", offered: "no frame was sent through queue \(queue) in \(limit.inUnits)",
        advice: "look at what the program did instead: its statistics, and held()")
    case .cancelled?: throw NetworkDeviceError(.cancelled, "nextSent")
    case .value(nil)?: throw NetworkDeviceError(.closed, "nextSent", offered: "the device is closed")
    case nil: throw noQueue(queue, "nextSent")
    }
  }

  /// All frames that are sent through a queue, from the first that nobody has asked for yet on, until the device is closed or the task
  /// cancelled; none where there is no such queue pair. It shares them with `nextSent(queue:within:)`: each goes to whoever asks first.
  ///
  /// Deadline: none.
  public func sent(queue: Int = 0) -> SentFrames { SentFrames(driver: self, queue: queue) }

  /// The frames of ``sent(queue:)``, as bytes.
  public struct SentFrames: AsyncSequence, Sendable {
    /// A frame.
    public typealias Element = [UInt8]
    /// The sequence only ends.
    public typealias Failure = Never
    fileprivate let driver: ScriptedDriver
    fileprivate let queue: Int

    /// An iterator; any number may be in use.
    public func makeAsyncIterator() -> Iterator { Iterator(frames: self) }

    /// Asks for one frame after the other.
    public struct Iterator: AsyncIteratorProtocol {
      fileprivate let frames: SentFrames

      /// The next frame, or nil at the end and when the task is cancelled. Without a deadline.
      public mutating func next(isolation actor: isolated (any Actor)? = #isolation) async -> [UInt8]? {
        if case .value(let frame)? = await frames.driver.next(frames.queue, within: nil) { return frame }
        return nil
      }
    }
  }

  private func next(_ queue: Int, within limit: Duration?) async -> LoopPromise<[UInt8]?>.Outcome? {
    guard let loop = loop(of: queue) else { return nil }
    let promise = LoopPromise<[UInt8]?>(loop: loop)
    guard await on(queue, { $0.sent.ask(promise) }) != nil else { return nil }
    return await promise.value(within: limit)
  }
}

/// What one queue has sent, and who waits for it; on the queue's loop.
struct SentRecord {
  private var frames: [[UInt8]] = []
  private var waiting: [LoopPromise<[UInt8]?>] = []
  private var isOver = false

  mutating func ask(_ promise: LoopPromise<[UInt8]?>) {
    if !frames.isEmpty { return promise.fulfil(frames.removeFirst()) }
    if isOver { return promise.fulfil(nil) }
    waiting.append(promise)
  }

  mutating func add(_ frame: [UInt8]) {
    while !waiting.isEmpty {
      let promise = waiting.removeFirst()
      // One whose task has gone on takes nothing.
      guard !promise.assumeIsolated({ $0.isSettled }) else { continue }
      return promise.fulfil(frame)
    }
    if frames.count == ScriptedDriver.sentLimit { frames.removeFirst() }
    frames.append(frame)
  }

  /// Nothing is sent any more.
  mutating func end() {
    isOver = true
    for promise in waiting { promise.fulfil(nil) }
    waiting = []
  }
}
