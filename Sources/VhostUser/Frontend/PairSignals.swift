internal import LibeventConcurrency
internal import Netdev
internal import VirtioNet

/// What a back-end signals about the two queues of a pair, by one eventfd for calls and one for errors: the driver looks at both rings
/// whichever it was, and four descriptors a pair are enough.
final class PairSignals: @unchecked Sendable {
  // Proof of Sendable: the sources and the timer are made on the pair's loop by the caller of `init` and cancelled there, and
  // `listeners` and `hasFailed` are touched there; the rest is constant.
  let call: Eventfd
  let error: Eventfd
  let loop: LoopExecutor
  /// Queues that still hear it; a pair has two, whose first makes this.
  private var listeners = 1
  private var isShared = false
  private var sources: [LoopSource] = []
  /// Reports, in a round of its own, that the back-end has blocked a doorbell: a doorbell rings in the middle of a queue's turn.
  private var failure: LoopTimer?
  private var hasFailed = false

  /// On the pair's loop.
  init(
    pair: Int, name: String, loop: LoopExecutor, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) {
    call = try Eventfd(for: name)
    error = try Eventfd(for: name)
    self.loop = loop
    let (call, error) = (call.descriptor, error.descriptor)
    do throws(LoopError) {
      let interrupts = try loop.makeSource(eventfd: call, keeping: self.call, handler: onInterrupt)
      let errors = try loop.makeSource(eventfd: error, keeping: self.error) {
        onFailure(
          NetworkDeviceError(
            .broken, name, offered: "the back-end reports an error on queue pair \(pair)",
            advice: "see the back-end's own log"))
      }
      failure = try loop.makeTimer {
        onFailure(
          NetworkDeviceError(
            .broken, name, offered: "the back-end blocks a doorbell of queue pair \(pair)",
            advice: "end it: it has filled the counter of a shared eventfd and cleared O_NONBLOCK"))
      }
      interrupts.resume()
      errors.resume()
      sources = [interrupts, errors]
    } catch {
      throw NetworkDeviceError(.system, "watching the eventfds of \(name)", offered: "\(error)")
    }
  }

  /// For the pair's other queue, once; nil when the first one has let go of it, or another has it.
  func share() -> PairSignals? {
    guard listeners == 1, !isShared else { return nil }
    (isShared, listeners) = (true, 2)
    return self
  }

  /// The back-end has blocked a doorbell of the pair.
  func noteBlocked() {
    guard !hasFailed else { return }
    hasFailed = true
    failure?.schedule(after: .zero)
  }

  /// A queue hears nothing from the back-end any more. With the last one nobody does.
  func leave() {
    listeners -= 1
    guard listeners == 0 else { return }
    for source in sources { source.cancel() }
    sources = []
    failure?.cancel()
    failure = nil
  }
}
