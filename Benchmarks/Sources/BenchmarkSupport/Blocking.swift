internal import Dispatch

/// Waits on this thread for what a task does: the main thread is the client and belongs to no executor.
public func blocking<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) throws -> Result {
  let outcome = Outcome<Result>()
  let done = DispatchSemaphore(value: 0)
  Task.detached {
    do { outcome.value = .success(try await body()) } catch { outcome.value = .failure(error) }
    done.signal()
  }
  done.wait()
  switch outcome.value {
  case .success(let result): return result
  case .failure(let error): throw error
  case nil: throw CancellationError()
  }
}

/// Written by the task, then read by who waited for it: the semaphore orders the two.
private final class Outcome<Value: Sendable>: @unchecked Sendable {
  var value: Result<Value, any Error>?
}
