import Foundation

/// A wire of the kernel between two network namespaces: a pair of veth interfaces, `veth0` and `veth1`.
public struct VethWire: Sendable {
  /// Where `veth0` is, with the addresses 10.78.0.1/24 and fd00:78::1/64.
  public let left: NamespaceThread
  /// Where `veth1` is, without an address.
  public let right: NamespaceThread

  /// What a sender leaves to an interface, which on this wire nobody does.
  public enum Offloads: String, Sendable {
    /// Every frame is on the wire as on a copper one.
    case none = "tso off gso off gro off tx off"
    /// Checksums are left to whoever receives the frame.
    case checksums = "tso off gso off gro off"
    /// Segments too.
    case all = ""
  }

  /// Whether there is what it takes to switch offloads off. In CI the tests run rather than being skipped.
  public static let isAvailable =
    NamespaceThread.isAvailable
    && (ProcessInfo.processInfo.environment["CI"] == "true"
      || ["/usr/sbin/ethtool", "/sbin/ethtool"].contains { FileManager.default.isExecutableFile(atPath: $0) })

  /// Makes the wire, both ends up.
  ///
  /// - Parameters:
  ///   - offloads: of the left end.
  ///   - right: where the right end goes, a namespace of its own if not said.
  ///   - names: of the ends.
  ///   - address: the left end's, with fd00:78:: for IPv6; nil for none.
  public init(
    offloads: Offloads = .none, left: NamespaceThread = NamespaceThread(), right: NamespaceThread = NamespaceThread(),
    names: (left: String, right: String) = ("veth0", "veth1"), address: String? = "10.78.0.1"
  ) async throws {
    self.left = left
    self.right = right
    let there = try await right.path
    // Without IPv6 of its own the right end sends nothing of its own accord.
    try await right.shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    try await left.shell(
      "ip link add \(names.left) type veth peer name \(names.right) netns \(there)")
    let switches = offloads == .all ? "" : "&& ethtool -K \(names.left) \(offloads.rawValue) > /dev/null"
    let addresses = address.map { address in
      "&& ip addr add \(address)/24 dev \(names.left) && ip -6 addr add fd00:78::1/64 dev \(names.left) nodad"
    }
    try await right.shell("ip link set \(names.right) up")
    try await left.shell("true \(switches) \(addresses ?? "") && ip link set \(names.left) up")
  }
}
