public import CTestSupport

/// Runs a piece of a test where the system refuses a call, as in a sandbox: on a thread of its own.
///
/// - Returns: 0, or the error number, negative, with which the filter was refused.
public func onThreadRefusing(_ call: test_call, _ error: CInt, _ body: () -> Void) -> CInt {
  withoutActuallyEscaping(body) { body in
    var work = body
    return unsafe withUnsafeMutablePointer(to: &work) { pointer in
      unsafe test_on_thread_refusing(
        call, error,
        { context in
          // The closure above, which lives until the thread has ended.
          unsafe context?.assumingMemoryBound(to: (() -> Void).self).pointee()
        }, pointer)
    }
  }
}
