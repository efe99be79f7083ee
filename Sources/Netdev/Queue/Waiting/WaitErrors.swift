// What those are told whose wait ends without what they waited for.

extension Error {
  /// What a cancelled task is told by this library or by the language, or the close that came of the cancellation.
  var isOfCancellation: Bool {
    if let error = self as? NetworkDeviceError { return error.code == .cancelled || error.code == .closed }
    return self is CancellationError
  }
}

extension NetworkDeviceError {
  /// The task was cancelled before what it had to send was published.
  @usableFromInline static func cancelled(_ operation: String) -> NetworkDeviceError {
    NetworkDeviceError(.cancelled, operation, offered: "the task was cancelled before the packet was published")
  }

  /// A frame is longer than its device takes, which for one without tags is up to `limit`.
  package static func tooLong(_ length: Int, _ limit: Int, _ operation: String) -> NetworkDeviceError {
    NetworkDeviceError(
      .frameTooLong, operation, offered: "a frame of \(length) bytes",
      advice: "this device takes up to \(limit), and four more for each of up to two VLAN tags")
  }

  /// What an operation throws that waited for a frame which was too long: a driver, which says so, does not know what the operation is.
  func told(by operation: String) -> NetworkDeviceError {
    code == .frameTooLong ? NetworkDeviceError(code, operation, offered: offered, advice: advice) : self
  }

  /// What an operation throws that meets with this end of what it waited for. One cancellation is one error: a task that was
  /// cancelled is told just that, also when it is the close that came of it which ended the wait.
  func met(by operation: String) -> NetworkDeviceError {
    if code == .cancelled || (code == .closed && Task.isCancelled) { return .cancelled(operation) }
    return code == .outOfMemory ? NetworkDeviceError(code, operation, offered: offered, advice: advice) : self
  }
}
