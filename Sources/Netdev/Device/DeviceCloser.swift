internal import Logging
internal import Synchronization

/// Closes a device exactly once, whoever asks first: the program, a cancelled `run`, a broken queue, the last reference.
actor DeviceCloser {
  private let driver: LoggedDriver
  private let timeout: Duration
  private let link: LinkMonitor
  /// Behind a lock, so that opening a device does not come here: the runtime's pool of threads stays unused.
  private nonisolated let queues = Mutex<[NetworkQueue]>([])
  private var closing: Task<NetworkDeviceError?, Never>?

  /// Why the device ended, if not because the program closed it.
  private(set) var brokenCause: NetworkDeviceError?

  init(driver: LoggedDriver, link: LinkMonitor, timeout: Duration) {
    self.driver = driver
    self.link = link
    self.timeout = timeout
  }

  nonisolated func add(_ queue: NetworkQueue) { queues.withLock { $0.append(queue) } }

  func close(_ cause: NetworkDeviceError) async throws(NetworkDeviceError) {
    if closing == nil {
      if cause.code != .closed { noteBroken(cause) }
      // A task of its own: the reset goes on although whoever asked for it is cancelled.
      closing = Task { await perform(cause) }
    }
    if let failure = await closing?.value { throw failure }
  }

  private func noteBroken(_ cause: NetworkDeviceError) {
    brokenCause = cause
    // A device that never had a queue could not be opened: whoever opens it has the error.
    driver.log(queues.withLock { $0.isEmpty } ? .debug : .error, "the device ends", ["cause": "\(cause)"])
  }

  private func perform(_ cause: NetworkDeviceError) async -> NetworkDeviceError? {
    driver.log(.debug, "closing")
    let queues = queues.withLock { $0 }
    var cause = cause
    for queue in queues {
      let end = await queue.stopAccepting(cause)
      // A queue that broke ends its consumers at once, and with them perhaps the program's `run`, which then asks for a
      // normal close before the queue's own call is here: a broken queue must not look like a normal end.
      if cause.code == .closed, end.code != .closed {
        cause = end
        noteBroken(end)
      }
    }
    var failure: NetworkDeviceError?
    do {
      try await driver.reset(timeout: timeout)
    } catch {
      failure = error
      driver.log(.error, "reset not confirmed; memory is quarantined", ["error": "\(error)"])
    }
    for queue in queues { await queue.finish(failure ?? cause, confirmed: failure == nil) }
    await driver.shutDown()
    link.finish()
    self.queues.withLock { $0 = [] }
    driver.log(.debug, "device closed")
    return failure
  }
}
