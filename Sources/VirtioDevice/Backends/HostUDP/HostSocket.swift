internal import CNetdevSystem
internal import Glibc
internal import PacketFormats

/// A UDP socket of this machine that is closed exactly once, when the last holder lets go.
final class HostSocket: Sendable {
  /// Non-blocking, close-on-exec.
  let descriptor: CInt
  /// The port it is bound to.
  let port: UInt16

  private init(descriptor: CInt, port: UInt16) {
    self.descriptor = descriptor
    self.port = port
  }

  deinit { netdev_close(descriptor) }

  /// Binds a socket to an address and port of this machine; port 0 takes any free one.
  static func open(address: IPv4Address, port: UInt16, receiveBytes: Int) throws(BackendError) -> HostSocket {
    let descriptor = netdev_udp_open(address.rawValue, port, CInt(clamping: receiveBytes))
    guard descriptor >= 0 else { throw refusal(errno: -descriptor, address: address, port: port) }
    let bound = netdev_udp_port(descriptor)
    // Asked of a socket that was just bound.
    return HostSocket(descriptor: descriptor, port: UInt16(clamping: bound))
  }

  private static func refusal(errno: CInt, address: IPv4Address, port: UInt16) -> BackendError {
    let operation = "opening UDP port \(address):\(port) of this machine"
    switch errno {
    case EADDRINUSE:
      return BackendError(
        .inUse, operation, errno: errno, advice: "another program has this port: take another, or 0 for any free one")
    case EACCES, EPERM:
      return BackendError(
        .permission, operation, errno: errno,
        advice: "ports below 1024 need CAP_NET_BIND_SERVICE: take one from 1024 on")
    case EADDRNOTAVAIL:
      return BackendError(
        .invalidConfiguration, operation, errno: errno,
        advice: "this machine does not have the address: 127.0.0.1 and 0.0.0.0 always work")
    default:
      return BackendError(
        .system, operation, errno: errno, advice: "see the error number: is a limit of open files reached?")
    }
  }
}
