internal import Dispatch
internal import Glibc

/// SIGINT and SIGTERM as a request to end, not as the end.
public final class EndingSignals {
  private let sources: [any DispatchSourceSignal]

  /// Calls `handler` on the main queue at each of the two signals until stopped.
  public init(_ handler: @escaping @Sendable () -> Void) {
    sources = [SIGINT, SIGTERM].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .main)
      source.setEventHandler(handler: handler)
      source.resume()
      return source
    }
  }

  /// Gives the signals back to the system.
  public func stop() {
    for source in sources { source.cancel() }
    for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) }
  }
}
