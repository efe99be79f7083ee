internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency

/// Which system calls of the library a world refuses, or cuts short: so many, as the seed says.
///
/// In a build with the package trait `Testing`, whose seam asks. Only what a call may report by its manual page, and what passes by
/// itself or may be told by a typed error: nothing that a kernel never does.
final class SimulatedFaults {
  /// One call in so many; 0 for none.
  var rate = 0
  /// Calls that were refused or cut short.
  private(set) var count = 0
  /// Loops of others than the library.
  private var spared: [Spared] = []

  private struct Spared {
    weak var loop: LoopExecutor?
  }

  func spare(_ loop: LoopExecutor) { spared.append(Spared(loop: loop)) }

  /// An error number for this call, or 0; asked with `cuts`, any other number to make it with half its length.
  func choose(_ call: UnsafePointer<CChar>?, cuts: Bool, _ random: inout SeededRandom) -> CInt {
    guard rate > 0, random.oneIn(rate), let call = unsafe call else { return 0 }
    let name = unsafe String(cString: call)
    guard let errors = cuts ? [EAGAIN] : Self.plausible[name] else { return 0 }
    guard !spared.contains(where: { $0.loop?.isOnLoop == true }) else { return 0 }
    count += 1
    return errors[random.below(errors.count)]
  }

  /// Not the question which process is behind a socket: without an answer the memory that it was shown stays in quarantine, which
  /// nobody could tell from memory that was forgotten.
  private static let plausible: [String: [CInt]] = [
    "accept4": [EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN, ECONNABORTED, EINTR],
    "bind": [EADDRINUSE, EACCES],
    "close": [EINTR],
    "connect": [EAGAIN, ECONNREFUSED, ENOENT],
    "eventfd": [EMFILE, ENFILE, ENOMEM],
    "fallocate": [ENOSPC, EINTR],
    "fcntl": [EPERM],
    "flock": [EWOULDBLOCK, EINTR, ENOLCK],
    "ftruncate": [ENOSPC, EINTR],
    "getsockname": [ENOBUFS],
    "ioctl": [EPERM, EBUSY, ENOMEM],
    "listen": [EADDRINUSE],
    "lstat": [EACCES],
    "madvise": [ENOMEM, EAGAIN],
    "memfd_create": [EMFILE, ENFILE, ENOMEM],
    "mmap": [ENOMEM, EAGAIN],
    "munmap": [ENOMEM],
    "open": [EMFILE, ENFILE, ENOMEM, EACCES],
    "poll": [EINTR],
    "preadv2": [EINTR, EAGAIN],
    "read": [EINTR, EAGAIN],
    "readv": [EINTR, EAGAIN, ENOMEM],
    "recv": [EINTR, ENOBUFS],
    "recvmmsg": [EINTR, EAGAIN, ENOMEM],
    "recvmsg": [EINTR, EAGAIN, ENOMEM, ECONNRESET],
    "renameat2": [EACCES, EEXIST],
    "send": [ENOBUFS, ENOMEM],
    "sendmmsg": [EINTR, EAGAIN, ENOBUFS, ENOMEM],
    "sendmsg": [EINTR, EAGAIN, ENOMEM, ENOBUFS, EPIPE],
    "setsockopt": [ENOMEM],
    "socket": [EMFILE, ENFILE, ENOMEM],
    "socketpair": [EMFILE, ENFILE, ENOMEM],
    "statx": [EACCES],
    "unlink": [EACCES],
    "write": [EINTR],
    "writev": [EINTR, EAGAIN, ENOBUFS, ENOMEM, EIO],
  ]
}
