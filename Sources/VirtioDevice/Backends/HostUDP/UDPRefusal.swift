internal import Glibc

/// What it means for a port that the kernel refused to receive or to send datagrams, by error number: every number has a
/// meaning, and none of them is to try again at once.
enum UDPRefusal: Equatable {
  /// Nothing there, or no room: the socket will say when there is.
  case notReady
  /// Memory or room elsewhere is lacking, or something unknown is: try again after a pause.
  case pause
  /// The first datagram is not taken; the next one may be.
  case drop(DropReason)
  /// No datagram can pass any more.
  case lost

  /// Of `recvmmsg`.
  init(receiving error: CInt) {
    switch error {
    case EAGAIN: self = .notReady
    case EPERM, EACCES, ENOSYS, EBADF, ENOTSOCK, EOPNOTSUPP: self = .lost
    default: self = .pause
    }
  }

  /// Of `sendmmsg`, for its first datagram.
  init(sending error: CInt) {
    switch error {
    case EAGAIN: self = .notReady
    case ENOBUFS, ENOMEM: self = .pause
    case EMSGSIZE: self = .drop(.tooLong)
    case ENETDOWN, ENETUNREACH, EHOSTUNREACH, EHOSTDOWN: self = .drop(.linkDown)
    case ENOSYS, EBADF, ENOTSOCK, EOPNOTSUPP: self = .lost
    // EPERM is a packet filter's word on one datagram, too.
    default: self = .drop(.refused)
    }
  }

  /// Whether the number is known to pass by itself, however long that takes.
  static func passes(_ error: CInt) -> Bool { error == ENOMEM || error == ENOBUFS }
}
