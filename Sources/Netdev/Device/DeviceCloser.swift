internal import Logging

/// Closes a device exactly once, whoever asks first: the program, a cancelled `run`, a broken queue, the last reference.
actor DeviceCloser {
  private let driver: any NetworkDriver
  private let timeout: Duration
  private let logger: Logger
  private let link: LinkMonitor
  private var queues: [NetworkQueue] = []
  private var closing: Task<NetworkDeviceError?, Never>?

  /// Why the device ended, if not because the program closed it.
  private(set) var brokenCause: NetworkDeviceError?

  init(driver: any NetworkDriver, link: LinkMonitor, timeout: Duration, logger: Logger) {
    self.driver = driver
    self.link = link
    self.timeout = timeout
    self.logger = logger
  }

  func add(_ queue: NetworkQueue) { queues.append(queue) }

  func close(_ cause: NetworkDeviceError) async throws(NetworkDeviceError) {
    if closing == nil {
      if cause.code != .closed { brokenCause = cause }
      // A task of its own: the reset goes on although whoever asked for it is cancelled.
      closing = Task { await perform(cause) }
    }
    if let failure = await closing?.value { throw failure }
  }

  private func perform(_ cause: NetworkDeviceError) async -> NetworkDeviceError? {
    let queues = queues
    var cause = cause
    for queue in queues {
      let end = await queue.stopAccepting(cause)
      // A queue that broke ends its consumers at once, and with them perhaps the program's `run`, which then asks for a
      // normal close before the queue's own call is here: a broken queue must not look like a normal end.
      if cause.code == .closed, end.code != .closed {
        cause = end
        brokenCause = end
      }
    }
    var failure: NetworkDeviceError?
    do {
      try await driver.reset(timeout: timeout)
    } catch {
      failure = error
      logger.error("reset not confirmed; memory is quarantined", metadata: ["error": "\(error)"])
    }
    for queue in queues { await queue.finish(failure ?? cause, confirmed: failure == nil) }
    await driver.shutDown()
    link.finish()
    self.queues = []
    return failure
  }
}
