internal import CNetdevSystem
internal import Glibc
internal import PacketFormats

/// A UDP socket of this machine that is closed exactly once, when the last holder lets go.
@safe final class HostSocket: Sendable {
  /// Non-blocking, close-on-exec.
  let socket: netdev_udp_socket
  /// The port it is bound to.
  let port: UInt16
  /// For errors and logs.
  let name: String

  private init(socket: netdev_udp_socket, port: UInt16, name: String) {
    self.socket = socket
    self.port = port
    self.name = name
  }

  deinit { netdev_close(socket.descriptor) }

  /// The descriptor, for a source.
  var descriptor: CInt { socket.descriptor }

  /// Binds a socket to an address and port of this machine; port 0 takes any free one.
  static func open(address: HostAddress, port: UInt16, receiveBytes: Int) throws(BackendError) -> HostSocket {
    var socket = netdev_udp_socket()
    let bound = unsafe netdev_udp_open(
      netdev_udp_address(address.mapped), port, CInt(clamping: receiveBytes), &socket)
    guard bound >= 0 else { throw refusal(errno: -bound, address: address, port: port) }
    let number = UInt16(clamping: bound)
    return HostSocket(socket: socket, port: number, name: "UDP port \(address.description(port: number))")
  }

  /// Why no datagram passes any more.
  func lossError(errno: CInt, _ doing: String) -> BackendError {
    switch errno {
    case _ where netdev_error_is_refusal(errno):
      BackendError(
        .permission, "\(doing) \(name) of this machine", errno: errno,
        advice: "the system refuses the call: look for a filter of system calls (seccomp) or a security module")
    default:
      BackendError(.system, "\(doing) \(name) of this machine", errno: errno, advice: "the error says why")
    }
  }

  private static func refusal(errno: CInt, address: HostAddress, port: UInt16) -> BackendError {
    let operation = "opening UDP port \(address.description(port: port)) of this machine"
    switch errno {
    case EADDRINUSE:
      return BackendError(
        .inUse, operation, errno: errno, advice: "another program has this port: take another, or 0 for any free one")
    case EACCES, EPERM:
      return BackendError(
        .permission, operation, errno: errno,
        advice: (1..<1024).contains(port)
          ? "ports below 1024 need CAP_NET_BIND_SERVICE: take one from 1024 on"
          : "look for a filter of system calls (seccomp) or a security module")
    case EADDRNOTAVAIL, EINVAL:
      return BackendError(
        .invalidConfiguration, operation, errno: errno,
        advice: "this machine does not have the address: 127.0.0.1 and 0.0.0.0 always work")
    case EAFNOSUPPORT:
      return BackendError(
        .unavailable, operation, errno: errno, advice: "this machine has no IPv6: take an IPv4 address, such as 0.0.0.0"
      )
    default:
      return BackendError(
        .system, operation, errno: errno, advice: BackendError.advice(for: errno, otherwise: "the error says why"))
    }
  }
}
