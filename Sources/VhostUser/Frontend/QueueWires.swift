internal import LibeventConcurrency
internal import Netdev
internal import Virtio
internal import VirtioNet

/// The eventfds of one virtqueue, and its driver's end of them: a kick of its own, and what it shares with the other one of its pair.
final class QueueWires: VirtioDoorbell, @unchecked Sendable {
  // Proof of Sendable: `isConnected` is touched on the queue's loop; the rest is constant.
  let placement: VirtioQueuePlacement
  let signals: PairSignals
  private let bell: Doorbell
  private let isPolled: Bool
  private let watch: KickWatch
  private var isConnected = true

  /// On the queue's loop.
  ///
  /// - Parameters:
  ///   - isPolled: the back-end polls the ring: nobody is kicked.
  ///   - watch: sees to it that nobody holds the loop in a kick.
  ///   - signals: what it listens to from here on, until it is disconnected.
  init(
    _ placement: VirtioQueuePlacement, name: String, isPolled: Bool, watch: KickWatch, signals: PairSignals
  ) throws(NetworkDeviceError) {
    self.placement = placement
    self.isPolled = isPolled
    self.watch = watch
    self.signals = signals
    do throws(NetworkDeviceError) {
      bell = try Doorbell(for: name)
    } catch {
      signals.leave()
      throw error
    }
    watch.add([bell])
  }

  /// The ring for the messages that set it up.
  var setup: RingSetup {
    let base = UInt32(placement.format.firstIndex)
    return RingSetup(
      placement, base: base | base << 16, kick: isPolled ? nil : bell.descriptor, call: signals.call.descriptor,
      error: signals.error.descriptor)
  }

  func kick() {
    guard !isPolled, !bell.ring(watch) else { return }
    signals.noteBlocked()
  }

  /// Hears nothing from the back-end any more. On the queue's loop; idempotent.
  func disconnect() {
    guard isConnected else { return }
    isConnected = false
    watch.remove([bell])
    signals.leave()
  }

  /// The same from elsewhere: as soon as the loop gets to it. The last reference to the loop may go there.
  func beginDisconnecting() { signals.loop.execute { self.disconnect() } }
}
