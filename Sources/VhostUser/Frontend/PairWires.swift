internal import LibeventConcurrency
internal import Netdev
internal import Virtio
internal import VirtioNet

/// The eventfds of one queue pair, and its driver's end of them: a kick for each ring, one call for both, one for errors.
final class PairWires: VirtioDoorbells, @unchecked Sendable {
  // Proof of Sendable: the sources and the timer are made on the pair's loop by the caller of `init` and cancelled there, and
  // `hasFailed` is touched there; the rest is constant.
  let placement: VirtioPairPlacement
  private let receiveBell: Doorbell
  private let transmitBell: Doorbell
  private let call: Eventfd
  private let error: Eventfd
  private let isPolled: Bool
  private let watch: KickWatch
  private let loop: LoopExecutor
  private var sources: [LoopSource] = []
  /// Reports, in a round of its own, that the back-end has blocked a doorbell: a doorbell rings in the middle of a queue's turn.
  private var failure: LoopTimer?
  private var hasFailed = false

  /// On the pair's loop.
  ///
  /// - Parameters:
  ///   - isPolled: the back-end polls the rings: nobody is kicked.
  ///   - watch: sees to it that nobody holds the loop in a kick.
  init(
    _ placement: VirtioPairPlacement, name: String, isPolled: Bool, loop: LoopExecutor, watch: KickWatch,
    onInterrupt: @escaping () -> Void, onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) {
    self.placement = placement
    self.isPolled = isPolled
    self.watch = watch
    receiveBell = try Doorbell(for: name)
    transmitBell = try Doorbell(for: name)
    call = try Eventfd(for: name)
    error = try Eventfd(for: name)
    self.loop = loop
    let (call, error) = (call.descriptor, error.descriptor)
    do throws(LoopError) {
      let interrupts = try loop.makeSource(eventfd: call, keeping: self.call, handler: onInterrupt)
      let errors = try loop.makeSource(eventfd: error, keeping: self.error) {
        onFailure(
          NetworkDeviceError(
            .broken, name, offered: "the back-end reports an error on queue pair \(placement.index)",
            advice: "see the back-end's own log"))
      }
      failure = try loop.makeTimer {
        onFailure(
          NetworkDeviceError(
            .broken, name, offered: "the back-end blocks a doorbell of queue pair \(placement.index)",
            advice: "end it: it has filled the counter of a shared eventfd and cleared O_NONBLOCK"))
      }
      interrupts.resume()
      errors.resume()
      sources = [interrupts, errors]
    } catch {
      throw NetworkDeviceError(.system, "watching the eventfds of \(name)", offered: "\(error)")
    }
    watch.add([receiveBell, transmitBell])
  }

  /// Both rings for the messages that set them up.
  var rings: [RingSetup] {
    let first = UInt32(truncatingIfNeeded: 2 * placement.index)
    let base = UInt32(RingFormat(placement.features).firstIndex)
    return [(first, placement.receive, receiveBell), (first + 1, placement.transmit, transmitBell)].map {
      RingSetup(
        index: $0, ring: $1, base: base | base << 16, kick: isPolled ? nil : $2.descriptor, call: call.descriptor,
        error: error.descriptor)
    }
  }

  func kickReceive() { ring(receiveBell) }
  func kickTransmit() { ring(transmitBell) }

  private func ring(_ bell: Doorbell) {
    guard !isPolled, !bell.ring(watch), !hasFailed else { return }
    hasFailed = true
    failure?.schedule(after: .zero)
  }

  /// Hears nothing from the back-end any more. On the pair's loop.
  func disconnect() {
    watch.remove([receiveBell, transmitBell])
    for source in sources { source.cancel() }
    sources = []
    failure?.cancel()
    failure = nil
  }

  /// The same from elsewhere: as soon as the loop gets to it. The last reference to the loop may go there.
  func beginDisconnecting() { loop.execute { self.disconnect() } }
}
