internal import CNetdevSystem
internal import HostInterfaces
internal import LibeventConcurrency

/// What becomes of a TAP interface beside its frames, for its first port: deleted, up or down, another MTU, queues that others
/// open. Each change is told once.
///
/// An interface may be moved to another namespace; the watch follows it, if this process is permitted to. Where the kernel does
/// not tell of links, a frame that it does not take tells of an interface that is down or gone.
final class TapWatch: @unchecked Sendable {
  // Proof of Sendable: what changes is touched on the port's loop only, from `init` to `close`.

  private let interface: String
  private let kind: TapQueue.Kind
  private let portLoop: LoopExecutor
  private var onEvent: ((PortEvent) -> Void)?
  private var watch: LinkWatch?

  // As it was seen last.
  private var isUp = true
  private var mtu: Int
  private var queues: Int

  /// Begins. On the port's loop.
  ///
  /// - Parameters:
  ///   - queue: any queue of the interface. Held weakly: one whose port has closed it shall not be open for the sake of a question.
  ///   - link: where to listen, and which link it is; nil where that could not be had.
  ///   - queues: how many the device holds.
  ///   - mtu: the one that the device offers.
  ///   - portLoop: where `onEvent` is called, with each change and with the loss of the interface.
  ///   - reports: of the watch's loop.
  /// - Throws: `LoopError` when a thread or its descriptors cannot be had.
  init(
    queue: TapQueue, link: (socket: LinkSocket, index: CInt)?, queues: Int, mtu: Int, portLoop: LoopExecutor,
    reports: LoopReports, onEvent: @escaping (PortEvent) -> Void
  ) throws(LoopError) {
    interface = queue.interface
    kind = queue.kind
    self.queues = queues
    self.mtu = mtu
    self.portLoop = portLoop
    self.onEvent = onEvent
    watch = try LinkWatch(link, reports: reports) { [weak queue] socket, link in
      Self.isStill(link, at: socket, of: queue)
    } follow: { [weak queue] in
      Self.find(queue)
    } onLook: { [weak self] seen in
      guard let self else { return }
      portLoop.execute { self.note(seen) }
    }
  }

  /// Ends it: nothing is told any more. On the port's loop, which does not wait for an answer that is due.
  func close() {
    onEvent = nil
    watch?.close()
    watch = nil
  }

  /// Whether a link is the interface of a queue: it has the name that the queue knows, in the namespace that the queue knows, which
  /// another may have where this process is not told of that.
  private static func isStill(_ link: netdev_link, at socket: LinkSocket, of queue: TapQueue?) -> Bool {
    guard let queue else { return true }
    guard socket.isBeside(tap: queue.descriptor) ?? true else { return false }
    do throws(BackendError) { return try queue.interfaceName() == link.interfaceName } catch {
      return error.code != .lost
    }
  }

  /// Finds the interface by one of its queues, in whatever namespace it is now.
  private static func find(_ queue: TapQueue?) -> LinkWatch.Whereabouts {
    guard let queue else { return .unknown }
    let name: String
    do throws(BackendError) { name = try queue.interfaceName() } catch { return error.code == .lost ? .gone : .unknown }
    // Not permitted to look where the interface is: it is here, unless somebody more powerful has moved it.
    guard let socket = LinkSocket(besideTap: queue.descriptor) ?? LinkSocket(),
      socket.isBeside(tap: queue.descriptor) ?? true, let link = socket.look(name)
    else { return .unknown }
    return .found(socket, link)
  }

  private func note(_ seen: LinkWatch.Seen) {
    let link: netdev_link
    switch seen {
    case .link(let found): link = found
    case .gone: return onEvent?(.lost(TapQueue.deletion(of: interface, kind))) ?? ()
    case .unknown: return onEvent?(.unwatched) ?? ()
    }
    if link.is_up != isUp {
      isUp = link.is_up
      onEvent?(.link(isUp: isUp))
    }
    if link.mtu >= 0, Int(link.mtu) != mtu {
      mtu = Int(link.mtu)
      onEvent?(.mtuChanged(to: mtu))
    }
    if link.queues >= 0, Int(link.queues) > queues { onEvent?(.shared(queues: Int(link.queues))) }
    if link.queues >= 0 { queues = max(queues, Int(link.queues)) }
  }
}
