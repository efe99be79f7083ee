internal import Dispatch
internal import Glibc
internal import Synchronization

/// Lines for a person, written by a thread of their own: a terminal that is stopped, or a pipe that nobody reads, holds that
/// thread and nobody else. What the program has to say then is dropped beyond a bound, and it can still end.
@safe public final class Output: Sendable {
  /// Standard output.
  public static let standard = Output(STDOUT_FILENO)
  /// Standard error.
  public static let errors = Output(STDERR_FILENO)

  private struct State {
    var lines: [String] = []
    var isWriting = false
    var hasThread = false
    var dropped = 0
  }

  /// Lines that wait at most.
  private static let bound = 1024

  private let descriptor: CInt
  private let state = Mutex(State())
  /// Counts lines that have not been taken.
  private let added = DispatchSemaphore(value: 0)

  private init(_ descriptor: CInt) { self.descriptor = descriptor }

  /// Has a line written, without waiting for it.
  public func print(_ line: String) {
    let isAdded = state.withLock { state -> Bool in
      if !state.hasThread { state.hasThread = startThread() }
      guard state.hasThread, state.lines.count < Self.bound else {
        state.dropped += 1
        return false
      }
      state.lines.append(line)
      return true
    }
    if isAdded { added.signal() }
  }

  /// Waits until everything is written, but no longer than a second: for the end of a program.
  public func finish() {
    // Ten times a second is soon enough for somebody who waits for a program to end, once.
    for _ in 0..<1000 where state.withLock({ !$0.lines.isEmpty || $0.isWriting }) { usleep(1000) }
  }

  // MARK: The thread

  private func startThread() -> Bool {
    var thread = pthread_t()
    // Signals are for the program's own threads.
    var (all, before) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
    let result = unsafe pthread_create(
      &thread, nil,
      { context in
        guard let context = unsafe context else { return nil }
        // The two outputs live as long as the program.
        unsafe Unmanaged<Output>.fromOpaque(context).takeUnretainedValue().writeLines()
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
    return result == 0
  }

  private func writeLines() {
    while true {
      added.wait()
      let next = state.withLock { state -> (line: String, dropped: Int)? in
        guard !state.lines.isEmpty else { return nil }
        state.isWriting = true
        let dropped = state.dropped
        state.dropped = 0
        return (state.lines.removeFirst(), dropped)
      }
      guard let next else { continue }
      if next.dropped > 0 { write("(\(next.dropped) lines were not written in time)\n") }
      write(next.line + "\n")
      state.withLock { $0.isWriting = false }
    }
  }

  private func write(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        // Inside the text's bytes.
        let count = unsafe Glibc.write(descriptor, bytes.baseAddress.map { unsafe $0 + done }, bytes.count - done)
        if count >= 0 {
          done += count
        } else if errno == EAGAIN {
          var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
          _ = unsafe poll(&ready, 1, -1)
        } else if errno != EINTR {
          // Closed: there is nobody to tell.
          return
        }
      }
    }
  }
}
