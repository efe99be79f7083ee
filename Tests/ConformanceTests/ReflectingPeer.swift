import CTestSupport
import Foundation
import Glibc
import NetdevTesting
import Synchronization
import TestSupport

/// The network's side of a TAP interface: a packet socket in the interface's namespace whose thread sends each frame back.
final class ReflectingPeer: ConformancePeer {
  private let state: Reflector
  private let finished = AsyncStream.makeStream(of: Void.self)

  /// In the interface's namespace: the calling thread's.
  init(interface: String) throws {
    let descriptor = unsafe test_packet_socket(interface)
    guard descriptor >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: -descriptor) ?? .EPERM) }
    // What is held waits here, and nothing may be lost.
    var size: CInt = 64 << 20
    let forceReceiveBuffer: CInt = 33  // SO_RCVBUFFORCE
    guard unsafe setsockopt(descriptor, SOL_SOCKET, forceReceiveBuffer, &size, 4) == 0 else {
      let code = errno
      Glibc.close(descriptor)
      throw POSIXError(POSIXErrorCode(rawValue: code) ?? .EPERM)
    }
    let reflector = try Reflector(descriptor: descriptor)
    state = reflector
    let continuation = finished.continuation
    Thread.detachNewThread {
      reflector.run()
      continuation.finish()
    }
  }

  func hold() { state.set { $0.isHolding = true } }
  func letGo() { state.set { $0.isHolding = false } }
  var returned: Int? { state.returned.load(ordering: .acquiring) }

  func close() async {
    state.set { $0.isFinished = true }
    for await _ in finished.stream {}
  }
}

/// What the thread does.
private final class Reflector: Sendable {
  struct Wish: Sendable {
    var isHolding = false
    var isFinished = false
    var isClosed = false
  }

  /// Frames that the interface's queue has: the socket puts them there before `send` returns.
  let returned = Atomic<Int>(0)
  private let wish = Mutex(Wish())
  private let descriptor: CInt
  /// A byte is written here when the wish changes: the thread sleeps in `poll`.
  private let (wakeRead, wakeWrite): (CInt, CInt)

  init(descriptor: CInt) throws {
    var ends: [CInt] = [0, 0]
    guard unsafe pipe(&ends) == 0 else { throw POSIXError(.EMFILE) }
    self.descriptor = descriptor
    (wakeRead, wakeWrite) = (ends[0], ends[1])
  }

  func set(_ change: (inout Wish) -> Void) {
    wish.withLock { wish in
      guard !wish.isClosed else { return }
      change(&wish)
      var byte: UInt8 = 1
      _ = unsafe write(wakeWrite, &byte, 1)
    }
  }

  func run() {
    reflect()
    wish.withLock { wish in
      wish.isClosed = true
      for descriptor in [descriptor, wakeRead, wakeWrite] { close(descriptor) }
    }
  }

  private func reflect() {
    var frame = [UInt8](repeating: 0, count: 65_536)
    while true {
      let now = wish.withLock { $0 }
      if now.isFinished { return }
      var entries = [
        pollfd(fd: wakeRead, events: Int16(POLLIN), revents: 0),
        pollfd(fd: now.isHolding ? -1 : descriptor, events: Int16(POLLIN), revents: 0),
      ]
      guard unsafe poll(&entries, 2, -1) >= 0 || errno == EINTR else { return }
      if entries[0].revents != 0 {
        _ = unsafe read(wakeRead, &frame, 64)
        continue
      }
      let length = unsafe recv(descriptor, &frame, frame.count, 0)
      guard length > 0 else { continue }
      while unsafe send(descriptor, frame, length, 0) < 0, errno == EAGAIN || errno == ENOBUFS {
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        _ = unsafe poll(&entry, 1, 10)
        if wish.withLock({ $0.isFinished }) { return }
      }
      returned.add(1, ordering: .releasing)
    }
  }
}
