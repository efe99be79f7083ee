internal import CNetdevSystem
internal import LibeventConcurrency
internal import Logging
internal import Netdev
internal import Synchronization

/// A packet socket of one queue pair, from when the driver is made until the last of driver and rings lets go of it.
///
/// Closing it takes the kernel some grace periods, and its lock of links where the interface is promiscuous: whoever lets go of it
/// last, nobody waits for that.
final class PacketSocket: Sendable {
  /// Non-blocking, close-on-exec.
  let descriptor: CInt
  /// Readable once after frames have left.
  let releases: CInt
  let interface: String
  let index: Int
  let counts: PacketCounts
  /// Kept when the socket has been closed.
  private let closing = Mutex<LoopPromise<Void>?>(nil)

  init(interface: String, index: Int, logger: Logger) throws(NetworkDeviceError) {
    descriptor = netdev_packet_open()
    guard descriptor >= 0 else { throw NetworkDeviceError(openingSocketOf: interface, errno: descriptor) }
    releases = netdev_packet_watch_releases(descriptor)
    guard releases >= 0 else {
      let opened = descriptor
      BlockingCalls.start { netdev_close(opened) }
      throw NetworkDeviceError(openingSocketOf: interface, errno: releases)
    }
    self.interface = interface
    self.index = index
    counts = PacketCounts(name: "packet \(interface)", queue: index, logger: logger)
  }

  deinit {
    let (descriptor, releases, closed) = (descriptor, releases, closing.withLock { $0 })
    // Side by side with others that go at the same time; whoever wants to know when asked before.
    BlockingCalls.start {
      netdev_close(releases)
      netdev_close(descriptor)
      closed?.fulfil(())
    }
  }

  /// A promise, for `loop`, that is kept when everybody has let go of the socket and it has been closed.
  func whenClosed(for loop: LoopExecutor) -> LoopPromise<Void> {
    let promise = LoopPromise<Void>(loop: loop)
    closing.withLock { $0 = promise }
    return promise
  }

  /// What the driver does with a socket when the device begins.
  enum Step { case binding, joining, promiscuous, opening }

  /// - Parameter result: negative where the step was refused.
  func check(_ step: Step, _ result: CInt) throws(NetworkDeviceError) {
    guard result < 0 else { return }
    throw NetworkDeviceError(step, of: self, errno: result)
  }

  /// Throws when the interface that the socket was bound to has left its namespace, if only for a moment.
  func checkThatItIsBound() throws(NetworkDeviceError) {
    let bound = netdev_packet_bound_to(descriptor)
    if bound < 0 { throw NetworkDeviceError(losing: interface, errno: bound) }
  }

  /// Adds what the kernel has dropped since it was asked last. From any thread.
  func askForDrops() {
    let dropped = netdev_packet_drops(descriptor)
    if dropped > 0 { counts.drop(.received, .noReceiveBuffer, UInt64(dropped)) }
  }
}

/// Why a frame was not carried on.
enum PacketDrop: String {
  /// The ring is full: nobody takes frames.
  case noReceiveBuffer
  /// Longer than the interface takes now.
  case tooLong
  /// Shorter than an Ethernet header.
  case refused
  /// The interface is down.
  case linkDown
}

/// What is shared of a queue pair: its limit, and what was dropped.
final class PacketCounts: Sendable {
  enum Direction { case transmitted, received }

  /// Longest frame without tags that the interface takes at the moment, in bytes.
  let limit = Atomic<Int>(0)
  private let counts = Mutex(DeviceDrops())
  private let name: String
  private let queue: Int
  private let logger: Logger

  init(name: String, queue: Int, logger: Logger) {
    self.name = name
    self.queue = queue
    self.logger = logger
  }

  var drops: DeviceDrops { counts.withLock { $0 } }

  /// Counts, and says so the first time.
  func drop(_ direction: Direction, _ reason: PacketDrop, _ count: UInt64 = 1) {
    let before = counts.withLock { counts in
      switch direction {
      case .transmitted:
        let before = counts.transmitted[reason.rawValue, default: 0]
        counts.transmitted[reason.rawValue] = before &+ count
        return before
      case .received:
        let before = counts.received[reason.rawValue, default: 0]
        counts.received[reason.rawValue] = before &+ count
        return before
      }
    }
    if before == 0 { sayDropped(direction, reason.rawValue) }
  }

  /// Says that there is a reason to drop frames; once for each. The queue's statistics or `deviceDrops` have the number.
  func sayDropped(_ direction: Direction, _ reason: String) {
    logger.notice(
      "a frame was dropped; others for this reason are only counted",
      metadata: ["device": "\(name)", "queue": "\(queue)", "reason": "\(reason)", "direction": "\(direction)"])
  }
}
