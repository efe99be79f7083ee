internal import CNetdevSystem
internal import LibeventConcurrency
internal import Netdev
internal import VirtioNet

/// The eventfds of one queue pair, and its driver's end of them: a kick for each ring, one call for both, one for errors.
final class PairWires: VirtioDoorbells, @unchecked Sendable {
  // Proof of Sendable: the sources are made and cancelled on the pair's loop; the rest is constant.
  let placement: VirtioPairPlacement
  private let kickReceiveDescriptor: CInt
  private let kickTransmitDescriptor: CInt
  private let call: CInt
  private let error: CInt
  private let isPolled: Bool
  private let loop: LoopExecutor
  private var sources: [LoopSource] = []

  /// On the pair's loop.
  ///
  /// - Parameter isPolled: the back-end polls the rings: nobody is kicked.
  init(
    _ placement: VirtioPairPlacement, name: String, isPolled: Bool, loop: LoopExecutor,
    onInterrupt: @escaping () -> Void, onFailure: @escaping (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) {
    let descriptors = (0..<4).map { _ in netdev_eventfd_create() }
    guard descriptors.allSatisfy({ $0 >= 0 }) else {
      for descriptor in descriptors where descriptor >= 0 { netdev_close(descriptor) }
      throw NetworkDeviceError(
        .system, "making eventfds for \(name)", offered: "error number \(-(descriptors.min() ?? 0))",
        advice: "raise the limit of open files")
    }
    self.placement = placement
    self.isPolled = isPolled
    kickReceiveDescriptor = descriptors[0]
    kickTransmitDescriptor = descriptors[1]
    call = descriptors[2]
    error = descriptors[3]
    self.loop = loop
    let (call, error) = (call, error)
    do throws(LoopError) {
      let interrupts = try loop.makeSource(descriptor: call, readiness: .readable) {
        _ = netdev_eventfd_drain(call)
        onInterrupt()
      }
      let errors = try loop.makeSource(descriptor: error, readiness: .readable) {
        _ = netdev_eventfd_drain(error)
        onFailure(
          NetworkDeviceError(
            .broken, name, offered: "the back-end reports an error on queue pair \(placement.index)",
            advice: "see the back-end's own log"))
      }
      interrupts.resume()
      errors.resume()
      sources = [interrupts, errors]
    } catch {
      throw NetworkDeviceError(.system, "watching the eventfds of \(name)", offered: "\(error)")
    }
  }

  deinit {
    for descriptor in [kickReceiveDescriptor, kickTransmitDescriptor, call, error] { netdev_close(descriptor) }
  }

  /// Both rings for the messages that set them up.
  var rings: [RingSetup] {
    let first = UInt32(truncatingIfNeeded: 2 * placement.index)
    return [
      RingSetup(
        index: first, ring: placement.receive, kick: isPolled ? nil : kickReceiveDescriptor, call: call, error: error),
      RingSetup(
        index: first + 1, ring: placement.transmit, kick: isPolled ? nil : kickTransmitDescriptor, call: call,
        error: error),
    ]
  }

  func kickReceive() { if !isPolled { _ = netdev_eventfd_signal(kickReceiveDescriptor) } }
  func kickTransmit() { if !isPolled { _ = netdev_eventfd_signal(kickTransmitDescriptor) } }

  /// Hears nothing from the back-end any more. On the pair's loop.
  func disconnect() {
    for source in sources { source.cancel() }
    sources = []
  }

  /// The same from elsewhere: as soon as the loop gets to it. The last reference to the loop may go there.
  func beginDisconnecting() { loop.execute { self.disconnect() } }
}
