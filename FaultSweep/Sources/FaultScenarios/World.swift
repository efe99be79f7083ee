import CFaultSupport
import Foundation
import Glibc
import Netdev
import PacketFormats
import Responder

/// What a scenario opens, and who is at its other side.
enum Kind: String, CaseIterable, Sendable {
  case loopback
  case ownLoop = "own-loop"
  case packed
  case forward
  case hostUDP = "host-udp"
  case vhostUser = "vhost-user"
  case vhostUserServer = "vhost-user-server"
  case tap
  case tapTwo = "tap-two"
  case tapDeleted = "tap-deleted"
  case tun
  case packet
  case packetTwo = "packet-two"

  /// Interfaces are made in a network of the process' own, which takes root.
  var needsRoot: Bool { [.tap, .tapTwo, .tapDeleted, .tun].contains(self) || isOnWire }

  /// The device has one end of a wire of the kernel, whose other end is the kernel's.
  var isOnWire: Bool { self == .packet || self == .packetTwo }
}

/// The world around one life of a device: it makes the other side, takes it away, and brings it back.
@MainActor final class World {
  let kind: Kind
  let urls: [String]
  private let path: String
  private var switchProcess: Int32 = 0
  private static var worlds = 0
  /// Free in a network of the process' own; outside of one nobody else's, most likely.
  private static let port: UInt16 = 20_000 + UInt16(getpid() % 20_000)
  private static let interface = "fault0"
  private static let otherEnd = "fault1"

  init(_ kind: Kind) {
    Self.worlds += 1
    self.kind = kind
    path = "/tmp/netdev-faults-\(getpid())-\(Self.worlds).sock"
    urls =
      switch kind {
      case .loopback: ["loopback:?lossless=1&queues=2"]
      case .ownLoop: ["loopback:?lossless=1&placement=own"]
      case .packed: ["loopback:?lossless=1&queues=2&packed=1&in_order=1"]
      case .forward: ["loopback:?lossless=1", "loopback:?lossless=1"]
      case .hostUDP: ["host-udp:127.0.0.1:\(Self.port)?placement=own"]
      case .vhostUser: ["vhost-user:\(path)?timeout=1&serve_timeout=2"]
      case .vhostUserServer: ["vhost-user:\(path)?server=1&timeout=1&connect_timeout=2&serve_timeout=2"]
      case .tap, .tapDeleted: ["tap:\(Self.interface)"]
      case .tun: ["tun:\(Self.interface)"]
      case .tapTwo: ["tap:\(Self.interface)?queues=2&placement=own"]
      case .packet: ["packet:\(Self.interface)"]
      case .packetTwo: ["packet:\(Self.interface)?queues=2&promiscuous=1"]
      }
  }

  /// The other side is a process of its own, whose death the device notices.
  var hasSwitch: Bool { kind == .vhostUser || kind == .vhostUserServer }

  /// Before the device is opened.
  func begin() {
    if hasSwitch { switchProcess = fault_start_switch(path, kind == .vhostUserServer) }
    guard kind.isOnWire else { return }
    if !fault_make_wire(Self.interface, Self.otherEnd) { complain("there is no wire") }
    for end in [Self.interface, Self.otherEnd] { _ = fault_set_up(end, true) }
  }

  /// When it is open.
  func opened() {
    guard kind.needsRoot else { return }
    let interface = kind.isOnWire ? Self.otherEnd : Self.interface
    if !fault_set_address(interface, "10.9.0.1") { complain("the interface takes no address") }
    _ = fault_set_up(Self.interface, true)
  }

  /// The other side goes away.
  func lose() {
    if hasSwitch { fault_kill_switch(switchProcess) }
    if kind == .tapDeleted, !fault_delete_link(Self.interface) { complain("the interface cannot be deleted") }
    if kind.needsRoot { _ = fault_set_up(Self.interface, false) }
  }

  /// It comes back.
  func restore() {
    if hasSwitch { switchProcess = fault_start_switch(path, kind == .vhostUserServer) }
    if kind.needsRoot { _ = fault_set_up(Self.interface, true) }
  }

  /// After the device has been closed.
  ///
  /// - Returns: whether a file is left that the device should have removed.
  func end() -> Bool {
    if hasSwitch { fault_kill_switch(switchProcess) }
    if kind.isOnWire { _ = fault_delete_link(Self.interface) }
    let left = files
    for file in left { unlink(file) }
    return kind == .vhostUserServer && !left.isEmpty
  }

  /// The socket, and names beside it that a listener has for a moment.
  private var files: [String] {
    let url = URL(filePath: path)
    let (folder, name) = (url.deletingLastPathComponent().path(), url.lastPathComponent)
    let all = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return all.filter { $0.hasPrefix(name) }.map { folder + $0 }
  }

  private func complain(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }

  /// The station that answers on the device; nil where frames come back by themselves.
  func responder(for device: NetworkDevice) throws -> Responder? {
    // Behind a UDP port the wire's own network is QEMU's.
    guard kind.needsRoot || kind == .hostUDP,
      let network = IPv4Network(kind == .hostUDP ? "10.0.2.15/24" : "10.9.0.2/24"),
      let mac = device.information.hardwareAddress
    else { return nil }
    return try Responder(macAddress: mac, addresses: [network])
  }

  /// Whom a socket of this host asks for an echo.
  var echoAddress: (host: String, port: UInt16) { kind == .hostUDP ? ("127.0.0.1", Self.port) : ("10.9.0.2", 7) }
}
