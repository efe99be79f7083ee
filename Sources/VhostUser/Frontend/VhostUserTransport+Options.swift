public import Logging
public import PacketFormats
public import VirtioNet

// What a program chooses.
extension VhostUserTransport {
  /// Who listens on the socket.
  public enum Role: Sendable, Hashable {
    /// The back-end does; we connect.
    case connect
    /// We do; the back-end connects to us, and may come back later.
    case listen
  }

  /// Choices of the program.
  public struct Options: Sendable {
    /// The socket's path, at most 107 bytes.
    public var path: String
    /// Who listens on it.
    public var role: Role
    /// How long a back-end is awaited in the listening role. In the connecting role there is no wait: a socket on which nobody
    /// listens is `notFound` at once.
    public var connectTimeout: Duration = .seconds(60)
    /// How long the back-end may take for one answer.
    public var requestTimeout: Duration = .seconds(5)
    /// How long the first frames of a queue pair other than the first may stay with the back-end before the pair counts as not
    /// served. Back-ends claim more pairs than they serve: DPDK says 128, always. Each pair is watched once: later
    /// frames, and those after a reconnection, may stay for any time.
    public var serviceTimeout: Duration = .seconds(10)
    /// The hardware address to give the device when the back-end has none; nil makes a locally administered one of the path.
    public var hardwareAddress: MACAddress?
    /// The MTU to tell the back-end, 68 to 9216; nil leaves it at 1500.
    public var mtu: Int?
    /// Kicks the back-end. False tells it to poll the rings instead (the document's "no file descriptor" bit).
    public var kicks = true
    /// What to do when the back-end goes away; nil lets the device break.
    public var recovery: VirtioRecovery? = VirtioRecovery()
    /// Where the messages are traced, in the document's words, at level `trace`.
    public var logger = Logger(label: "netdev.vhost-user")

    /// The defaults, for a socket.
    public init(path: String, role: Role = .connect) {
      self.path = path
      self.role = role
    }
  }
}
