internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency

/// What becomes of a TAP interface beside its frames: deleted, up or down, another MTU, queues that others open. On a loop.
///
/// The kernel tells of every change of a link through a netlink socket, which costs nothing while there is none. What is told
/// is only the reason to look: what counts is what the kernel says when it is asked then. An interface may be moved to another
/// namespace; the socket then follows it, if this process is permitted to. Where there is no such socket, a frame that the
/// kernel does not take tells of an interface that is down or gone.
final class TapWatch {
  private let queue: TapQueue
  private let bell: ServiceBell
  private let onLoss: (BackendError) -> Void
  private var descriptor: CInt = -1
  private var source: LoopSource?

  // As it was seen last.
  private var isUp = true
  private var mtu: Int
  private var queues: Int

  /// - Parameters:
  ///   - queue: any queue of the interface.
  ///   - queues: how many the device holds.
  ///   - mtu: the one that the device offers.
  ///   - bell: what is told of changes.
  ///   - onLoss: called when the interface is gone.
  init(queue: TapQueue, queues: Int, mtu: Int, bell: ServiceBell, onLoss: @escaping (BackendError) -> Void) {
    self.queue = queue
    self.queues = queues
    self.mtu = mtu
    self.bell = bell
    self.onLoss = onLoss
    watch()
    look()
  }

  /// Ends it. Before the last reference goes, on the loop.
  func close() {
    source?.cancel()
    source = nil
    if descriptor >= 0 { netdev_close(descriptor) }
    descriptor = -1
  }

  /// Listens in the namespace that the interface is in now.
  private func watch() {
    close()
    // Not permitted to look where the interface is: it is here, unless somebody more powerful has moved it.
    let beside = netdev_link_watch_beside(queue.descriptor)
    let opened = beside >= 0 ? beside : netdev_link_watch()
    guard opened >= 0 else { return }
    descriptor = opened
    source = try? bell.loop.makeSource(descriptor: opened, readiness: .readable) { [weak self] in self?.look() }
    guard let source else { return close() }
    source.resume()
  }

  private func look() {
    guard descriptor >= 0 else { return }
    var hasMoved = false
    while true {
      let name: String
      do throws(BackendError) { name = try queue.interfaceName() } catch {
        close()
        if error.code == .lost { onLoss(error) }
        return
      }
      var link = netdev_link()
      switch unsafe netdev_link_look(descriptor, name, &link) {
      case 0: return note(link)
      case -ENODEV where !hasMoved:
        // It has another name since, or another namespace.
        hasMoved = true
        watch()
        guard descriptor >= 0 else { return }
      case -EAGAIN: return
      default:
        // A socket that cannot be read any more must not be watched.
        return close()
      }
    }
  }

  private func note(_ link: netdev_link) {
    if link.is_up != isUp {
      isUp = link.is_up
      bell.report(.link(isUp: isUp))
    }
    if link.mtu >= 0, Int(link.mtu) != mtu {
      mtu = Int(link.mtu)
      bell.report(.mtuChanged(to: mtu))
    }
    if link.queues >= 0, Int(link.queues) > queues { bell.report(.shared(queues: Int(link.queues))) }
    if link.queues >= 0 { queues = max(queues, Int(link.queues)) }
  }
}
