internal import CNetdevSystem
internal import Glibc

/// What it means for a port that the kernel refused to read or to write one frame of a TAP interface, by error number: every
/// number has a meaning, and none of them is to try again at once.
enum TapRefusal: Equatable {
  /// Nothing to read, or no room to write: the descriptor will say when there is.
  case notReady
  /// Memory or room elsewhere is lacking, or something unknown is: try again after a pause.
  case pause
  /// As `pause`; and the kernel has thrown away the frame that was read.
  case droppedAndPause(DropReason)
  /// This frame is not taken; the next one may be.
  case drop(DropReason)
  /// The interface is down.
  case linkDown
  /// No frame can pass any more.
  case lost

  /// Of `readv`.
  init(reading error: CInt) {
    switch error {
    case EAGAIN: self = .notReady
    case EFAULT: self = .droppedAndPause(.memoryFault)
    default: self = Self.isFinal(error) ? .lost : .pause
    }
  }

  /// Of `writev`.
  init(writing error: CInt) {
    switch error {
    case EAGAIN: self = .notReady
    case ENOBUFS, ENOMEM: self = .pause
    case EIO, ENETDOWN: self = .linkDown
    case EMSGSIZE, E2BIG: self = .drop(.tooLong)
    case EFAULT: self = .drop(.memoryFault)
    default: self = Self.isFinal(error) ? .lost : .drop(.refused)
    }
  }

  /// Whether the number is known to pass by itself, however long that takes.
  static func passes(_ error: CInt) -> Bool { error == ENOMEM || error == ENOBUFS }

  /// The interface is gone, or a filter of system calls stands in the way: it will not go away.
  private static func isFinal(_ error: CInt) -> Bool {
    [EBADFD, EBADF, ENODEV, ENXIO].contains(error) || netdev_error_is_refusal(error)
  }
}
