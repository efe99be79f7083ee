internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import Netdev

/// What it means that the kernel took no frame, or not all, by error number: every number has a meaning.
package enum PacketRefusal: Equatable {
  /// The socket's share of memory is used up: it is told when there is some.
  case notReady
  /// Memory or room elsewhere is lacking: try again after a pause.
  case pause
  /// Nobody knows whether it passes: try again after a pause, and not for ever.
  case unknown
  /// The interface is down.
  case linkDown
  /// The interface is gone: no frame can pass any more.
  case lost
  /// The system refuses for good.
  case refused

  package init(sending error: CInt) {
    switch error {
    // Without an error: a part was taken, and then there was no memory.
    case 0, EAGAIN: self = .notReady
    case ENOBUFS, ENOMEM: self = .pause
    case ENETDOWN: self = .linkDown
    case ENXIO, ENODEV: self = .lost
    case EPERM, EACCES, ENOSYS, EBADF, ENOTSOCK, EOPNOTSUPP: self = .refused
    default: self = .unknown
    }
  }
}

/// How long what nobody knows to pass is taken for something that does.
package struct PacketPatience {
  /// Refusals of that kind in a row after which it will always be so.
  package static let most = 16

  private var unknown = 0

  package init() {}

  /// Counts a refusal; false when there is no use in trying again.
  package mutating func bears(_ refusal: PacketRefusal) -> Bool {
    unknown = refusal == .unknown ? unknown + 1 : 0
    return refusal != .refused && unknown <= Self.most
  }

  /// A frame was taken.
  package mutating func succeeded() { unknown = 0 }
}

// MARK: - For whoever opens a device

extension NetworkDeviceError {
  /// A socket, or what belongs to it, could not be had.
  init(openingSocketOf interface: String, errno number: CInt) {
    let operation = "opening a packet socket for \(interface)"
    switch -number {
    case EPERM, EACCES:
      self.init(
        .notPermitted, operation, offered: "\(ErrorNumber(number))",
        advice: "run with CAP_NET_RAW: as root, after setcap cap_net_raw+ep PROGRAM, or in a container with "
          + "--cap-add NET_RAW")
    case EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT:
      self.init(
        .unsupported, operation, offered: "\(ErrorNumber(number))", advice: "load the module: modprobe af_packet")
    default:
      self.init(lacking: operation, errno: number)
    }
  }

  /// There is no such interface, or it does not say what it is.
  init(finding interface: String, errno number: CInt) {
    let operation = "opening interface \(interface)"
    switch -number {
    case ENODEV, ENXIO:
      let names = Self.interfaceNames
      self.init(
        .notFound, operation, offered: "there is no interface \(interface)",
        advice: names.isEmpty ? "ip link shows those that there are" : "this host has \(names)")
    case ENAMETOOLONG:
      self.init(
        .invalidConfiguration, operation, offered: "a name of \(interface.utf8.count) bytes", advice: "15 are possible")
    default:
      self.init(lacking: operation, errno: number)
    }
  }

  /// The names of the interfaces that the calling thread sees. Nothing on a loop, which the kernel's lock of links would hold.
  private static var interfaceNames: String {
    guard netdev_current_loop_identity() == 0 else { return "" }
    var bytes = [CChar](repeating: 0, count: 512)
    unsafe bytes.withUnsafeMutableBufferPointer { room in
      // As many bytes as it is told.
      unsafe netdev_packet_names(room.baseAddress, room.count)
    }
    return String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// The interface is gone, or cannot be asked.
  init(losing interface: String, errno number: CInt) {
    let operation = "interface \(interface)"
    switch -number {
    case ENODEV, ENXIO:
      self.init(
        .notFound, operation, offered: "it was deleted, or moved to another network namespace",
        advice: "open the device again when it is back")
    default:
      self.init(lacking: operation, errno: number)
    }
  }

  /// The socket's rings could not be had.
  init(preparing socket: PacketSocket, step: CInt, errno number: CInt) {
    let what =
      switch step {
      case CInt(netdev_packet_step_filter.rawValue): "its filter"
      case CInt(netdev_packet_step_version.rawValue): "TPACKET_V2"
      case CInt(netdev_packet_step_header.rawValue): "PACKET_VNET_HDR"
      case CInt(netdev_packet_step_loss.rawValue): "PACKET_LOSS"
      case CInt(netdev_packet_step_outgoing.rawValue): "PACKET_IGNORE_OUTGOING"
      case CInt(netdev_packet_step_receive_ring.rawValue): "its receive ring"
      case CInt(netdev_packet_step_transmit_ring.rawValue): "its transmit ring"
      default: "the mapping of its rings"
      }
    let operation = "setting up queue \(socket.index) of interface \(socket.interface): \(what)"
    switch -number {
    case EINVAL, ENOPROTOOPT:
      self.init(
        .unsupported, operation, offered: "\(ErrorNumber(number))", advice: "it takes a kernel with TPACKET_V2 rings")
    case ENOMEM, ENOBUFS, EAGAIN:
      self.init(
        .outOfMemory, operation, offered: "\(ErrorNumber(number))",
        advice: "ask for fewer queues or a smaller queue_size")
    default: self.init(lacking: operation, errno: number)
    }
  }

  /// The device could not begin.
  init(_ step: PacketSocket.Step, of socket: PacketSocket, errno number: CInt) {
    let what =
      switch step {
      case .binding: "binding queue \(socket.index) to interface \(socket.interface)"
      case .joining: "joining queue \(socket.index) to those of interface \(socket.interface)"
      case .promiscuous: "asking interface \(socket.interface) for frames of other stations"
      case .opening: "letting frames of interface \(socket.interface) pass to queue \(socket.index)"
      }
    switch -number {
    case ENODEV, ENXIO: self.init(losing: socket.interface, errno: number)
    case ENOSPC where step == .joining:
      self.init(
        .busy, what, offered: "\(ErrorNumber(number))", advice: "no group of packet sockets is free: end others")
    case EINVAL where step == .joining:
      self.init(
        .unsupported, what, offered: "\(ErrorNumber(number))",
        advice: "set the interface up first, or ask for one queue")
    default: self.init(lacking: what, errno: number)
    }
  }

  /// Something that a process or the system has only so much of, a permission, or an error that speaks for itself.
  init(lacking operation: String, errno number: CInt) {
    let offered = "\(ErrorNumber(number))"
    switch -number {
    case EMFILE, ENFILE:
      self.init(.system, operation, offered: offered, advice: "raise the limit of open files (ulimit -n)")
    case ENOMEM, ENOBUFS: self.init(.outOfMemory, operation, offered: offered, advice: "free memory, or ask for less")
    case EPERM, EACCES:
      self.init(
        .notPermitted, operation, offered: offered,
        advice: "look for a filter of system calls (seccomp) or a security module")
    default: self.init(.system, operation, offered: offered)
    }
  }
}
