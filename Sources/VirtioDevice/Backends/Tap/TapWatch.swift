internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency

/// What becomes of a TAP interface beside its frames: deleted, up or down, another MTU, queues that others open.
///
/// The kernel tells of every change of a link through a netlink socket, which costs nothing while there is none. What is told
/// is only the reason to look: what counts is what the kernel says when it is asked then. It answers under the lock of all
/// changes to links, which anybody on the machine may hold for long: so it is asked on a loop of the watch's own, where nobody
/// else waits. An interface may be moved to another namespace; the socket then follows it, if this process is permitted to.
/// Where there is no such socket, a frame that the kernel does not take tells of an interface that is down or gone.
final class TapWatch: @unchecked Sendable {
  // Proof of Sendable: `onEvent` is touched on the port's loop only, from `init` to `close`; everything else that changes on the
  // watch's own, from `begin` to `end`.

  /// Its thread asks the kernel, and may wait for the answer.
  private let loop: LoopExecutor
  private let portLoop: LoopExecutor
  private var onEvent: ((PortEvent) -> Void)?
  /// Weak: a queue whose port has closed it shall not be open for the sake of a question.
  private weak let queue: TapQueue?
  private var socket: LinkSocket?
  private var source: LoopSource?
  private var isOver = false

  // As it was seen last.
  private var index: CInt
  private var isUp = true
  private var mtu: Int
  private var queues: Int

  /// Begins. On the port's loop.
  ///
  /// - Parameters:
  ///   - queue: any queue of the interface.
  ///   - link: where to listen, and which link it is; nil where that could not be had.
  ///   - queues: how many the device holds.
  ///   - mtu: the one that the device offers.
  ///   - portLoop: where `onEvent` is called, with each change and with the loss of the interface.
  /// - Throws: `LoopError` when a thread or its descriptors cannot be had.
  init(
    queue: TapQueue, link: (socket: LinkSocket, index: CInt)?, queues: Int, mtu: Int, portLoop: LoopExecutor,
    onEvent: @escaping (PortEvent) -> Void
  ) throws(LoopError) {
    self.queue = queue
    socket = link?.socket
    index = link?.index ?? 0
    self.queues = queues
    self.mtu = mtu
    self.portLoop = portLoop
    self.onEvent = onEvent
    loop = try LoopExecutor(name: "tap-watch")
    loop.execute { [self] in begin() }
  }

  /// Ends it: nothing is told any more. On the port's loop, which does not wait for an answer that is due.
  func close() {
    onEvent = nil
    loop.execute { [self] in end() }
  }

  private func tell(_ event: PortEvent) {
    portLoop.execute { [self] in onEvent?(event) }
  }
}

// MARK: - On its own loop

extension TapWatch {
  private func begin() {
    if let socket { listen(socket) } else { follow() }
    look()
  }

  private func end() {
    isOver = true
    source?.cancel()
    source = nil
    socket = nil
  }

  private func listen(_ socket: LinkSocket) {
    end()
    isOver = false
    self.socket = socket
    source = try? loop.makeSource(descriptor: socket.descriptor, readiness: .readable, keeping: socket) { [weak self] in
      self?.look()
    }
    // A socket that nobody reads would say nothing new.
    if let source { source.resume() } else { end() }
  }

  private func look() {
    guard !isOver, let socket else { return }
    var link = netdev_link()
    switch unsafe netdev_link_look_again(socket.descriptor, index, &link) {
    case 0: note(link)
    case -ENODEV: follow()
    case -EAGAIN: return
    // A socket that cannot be read any more must not be watched.
    default: end()
    }
  }

  /// Finds the interface by one of its queues, in whatever namespace it is now.
  private func follow() {
    end()
    guard let queue else { return }
    let name: String
    do throws(BackendError) { name = try queue.interfaceName() } catch {
      if error.code == .lost { tell(.lost(error)) }
      return
    }
    // Not permitted to look where the interface is: it is here, unless somebody more powerful has moved it.
    guard let found = LinkSocket(beside: queue.descriptor) ?? LinkSocket(), let link = found.look(name) else { return }
    index = link.index
    listen(found)
    note(link)
  }

  private func note(_ link: netdev_link) {
    if link.is_up != isUp {
      isUp = link.is_up
      tell(.link(isUp: isUp))
    }
    if link.mtu >= 0, Int(link.mtu) != mtu {
      mtu = Int(link.mtu)
      tell(.mtuChanged(to: mtu))
    }
    if link.queues >= 0, Int(link.queues) > queues { tell(.shared(queues: Int(link.queues))) }
    if link.queues >= 0 { queues = max(queues, Int(link.queues)) }
  }
}
