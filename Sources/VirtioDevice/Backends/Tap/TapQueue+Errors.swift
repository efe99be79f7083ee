internal import CNetdevSystem
internal import Glibc

// What the kernel refuses, in words that say what to do.
extension TapQueue {
  static func check(name: String, _ kind: Kind) throws(BackendError) {
    guard name.utf8.count < Int(IFNAMSIZ) else {
      throw BackendError(
        .invalidConfiguration, "opening \(kind.word) \(name)", errno: ENAMETOOLONG,
        advice: "the name of an interface has at most 15 bytes")
    }
    // The kernel's dev_valid_name, and no '%', which it would take for a pattern.
    let isValid =
      name != "." && name != ".."
      && name.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }
      && !name.utf8.contains(UInt8(ascii: "%"))
    guard isValid else {
      throw BackendError(
        .invalidConfiguration, "opening \(kind.word) \(name)", errno: EINVAL,
        advice: "the name of an interface has no spaces, no '/', ':' or '%'")
    }
  }

  /// The interface is gone.
  static func deletion(of interface: String, _ kind: Kind) -> BackendError {
    lossError(errno: EBADFD, "asking about", interface, kind)
  }

  /// Why no frame passes this queue any more.
  func lossError(errno: CInt, _ doing: String) -> BackendError { Self.lossError(errno: errno, doing, interface, kind) }

  static func lossError(errno: CInt, _ doing: String, _ interface: String, _ kind: Kind) -> BackendError {
    switch errno {
    case EBADFD, ENODEV, ENXIO:
      return BackendError(
        .lost, "\(kind.word) \(interface)", errno: errno,
        advice: "the interface was deleted: make it again, and open the device again")
    case _ where netdev_error_is_refusal(errno):
      return BackendError(
        .permission, "\(doing) \(kind.word) \(interface)", errno: errno,
        advice: "the system refuses the call: look for a filter of system calls (seccomp) or a security module")
    default:
      return BackendError(
        .system, "\(doing) \(kind.word) \(interface)", errno: errno, advice: "the error says why")
    }
  }

  static func refusal(
    errno: CInt, opening: Bool, name: String, index: Int, count: Int, _ kind: Kind = .tap
  ) -> BackendError {
    if opening {
      let operation = "opening /dev/net/tun"
      switch errno {
      case ENOENT, ENXIO, ENODEV:
        return BackendError(
          .unavailable, operation, errno: errno,
          advice: "load the tun module (modprobe tun), or pass the device into the container (--device /dev/net/tun)")
      case EACCES, EPERM:
        return BackendError(
          .permission, operation, errno: errno,
          advice: "run as a user that may read and write /dev/net/tun, or change its mode")
      default:
        return BackendError(
          .system, operation, errno: errno, advice: BackendError.advice(for: errno, otherwise: "the error says why"))
      }
    }
    let operation = "attaching queue \(index) of \(count) of \(kind.word) \(name)"
    switch errno {
    case EPERM, EACCES:
      return BackendError(
        .permission, operation, errno: errno,
        advice: "run with CAP_NET_ADMIN, or let root make the interface for you: "
          + "ip tuntap add dev \(name) mode \(kind.mode) user $USER" + (count > 1 ? " multi_queue" : ""))
    case EBUSY:
      return BackendError(
        .inUse, operation, errno: errno,
        advice: "another process, or a device of this one that is not closed yet, has this interface, or it is not a "
          + "\(kind.word): take another name, or open an interface that is none by packet:\(name)")
    case EINVAL:
      return BackendError(
        .invalidConfiguration, operation, errno: errno,
        advice: count > 1
          ? "an interface of this name exists and is not a \(kind.word) with several queues: take another name or one "
            + "queue, or make it with ip tuntap add dev \(name) mode \(kind.mode) multi_queue"
          : "an interface of this name exists and is not a \(kind.word): take another name, or open it by packet:\(name)"
      )
    case E2BIG:
      return BackendError(
        .notOffered, operation, errno: errno,
        advice: "the kernel gives a \(kind.word) no more queues: ask for \(index) or fewer")
    default:
      return BackendError(.system, operation, errno: errno, advice: "the error says why")
    }
  }
}
