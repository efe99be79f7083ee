internal import CNetdevSystem
internal import Glibc
internal import HostInterfaces
internal import LibeventConcurrency
internal import Synchronization
internal import Virtio

/// One open queue of a TAP or a TUN interface: a descriptor that is closed exactly once, when the last holder lets go.
///
/// The back-end holds its queues from opening to closing, a port holds its own while it serves. Neither can close a
/// descriptor that the other still reads from, and no number is ever closed twice.
///
/// The kernel does most of what changes a queue, closing included, under its lock of all changes to links, which anybody on the
/// machine may hold for long: what a loop wants of that kind is done elsewhere (`calls`), in order.
final class TapQueue: Sendable {
  /// Non-blocking, close-on-exec.
  let descriptor: CInt
  /// Whether the interface has several queues, so that this one can be attached and detached.
  let isMultiQueue: Bool
  /// The name that the interface had when the queue was opened.
  let interface: String
  /// What it carries.
  let kind: Kind
  /// Where a port has done what may block.
  let calls = BlockingQueue()
  /// Attached and found in order for the next port that serves it.
  private let isPrepared = Atomic<Bool>(false)

  /// What an interface of this process carries.
  enum Kind: Sendable {
    /// Frames.
    case tap
    /// Packets, without Ethernet.
    case tun

    /// In messages.
    var word: String { self == .tap ? "TAP interface" : "TUN interface" }
    /// For `ip tuntap`.
    var mode: String { self == .tap ? "tap" : "tun" }

    func open(_ name: String, isMultiQueue: Bool, _ step: inout CInt) -> CInt {
      switch self {
      case .tap: unsafe netdev_tap_open(name, isMultiQueue, &step)
      case .tun: unsafe netdev_tun_open(name, isMultiQueue, &step)
      }
    }

    func differences(_ descriptor: CInt, isMultiQueue: Bool) -> CInt {
      switch self {
      case .tap: netdev_tap_differences(descriptor, isMultiQueue, CInt(VirtioNetHeader.size))
      case .tun: netdev_tun_differences(descriptor, isMultiQueue, CInt(VirtioNetHeader.size))
      }
    }
  }

  private init(descriptor: CInt, isMultiQueue: Bool, interface: String, kind: Kind) {
    self.kind = kind
    self.descriptor = descriptor
    self.isMultiQueue = isMultiQueue
    self.interface = interface
  }

  deinit {
    let descriptor = descriptor
    BlockingCalls.run { netdev_close(descriptor) }
  }

  /// Opens all queues of an interface, which is made if there is none of this name.
  ///
  /// - Parameters:
  ///   - name: up to 15 bytes; empty lets the kernel choose.
  ///   - count: at least 1.
  /// - Returns: the queues, still attached.
  static func open(name: String, count: Int, kind: Kind = .tap) throws(BackendError) -> [TapQueue] {
    try check(name: name, kind)
    // Before a queue is attached: it would take flows away from whoever has the interface, and change their headers.
    if !name.isEmpty { try checkThatNobodyElse(has: name, besides: 0, kind) }
    var queues: [TapQueue] = []
    for index in 0..<count {
      let queue = try open(name: queues.first?.interface ?? name, index: index, of: count, kind)
      queues.append(queue)
      guard index == 0 else { continue }
      guard name.isEmpty || queue.interface == name else {
        throw BackendError(
          .system, "opening \(kind.word) \(name)", advice: "the kernel opened \(queue.interface) instead")
      }
    }
    if let name = queues.first?.interface { try checkThatNobodyElse(has: name, besides: count, kind) }
    return queues
  }

  private static func open(name: String, index: Int, of count: Int, _ kind: Kind) throws(BackendError) -> TapQueue {
    var step: CInt = 0
    var isMultiQueue = count > 1
    var result = kind.open(name, isMultiQueue: isMultiQueue, &step)
    if result == -EINVAL, step == 1, count == 1 {
      // An interface that somebody made with multi_queue: one of its queues will do.
      isMultiQueue = true
      result = kind.open(name, isMultiQueue: true, &step)
    }
    guard result >= 0 else {
      throw refusal(errno: -result, opening: step == 0, name: name, index: index, count: count, kind)
    }
    let opened: String
    do throws(BackendError) { opened = try interfaceName(of: result, knownAs: name, kind) } catch {
      netdev_close(result)
      throw error
    }
    let queue = TapQueue(descriptor: result, isMultiQueue: isMultiQueue, interface: opened, kind: kind)
    try queue.setUpHeaders()
    return queue
  }

  /// Two programs on one interface each get a part of the flows, and change each other's headers: the kernel lets them.
  private static func checkThatNobodyElse(has name: String, besides own: Int, _ kind: Kind) throws(BackendError) {
    // Where netlink is refused, frames will tell.
    guard let link = LinkSocket()?.look(name), Int(link.queues) > own else { return }
    throw BackendError(
      .inUse, "opening \(kind.word) \(name)", errno: EBUSY,
      advice: "another process, or a device of this one that is not closed yet, has \(Int(link.queues) - own) of its "
        + "queues: end or close it, or take another interface")
  }

  // MARK: What was asked for, and whether it is so

  /// The header of virtio-net 1.0 in front of each frame (12 bytes, VIRTIO 1.4 §5.1.9.3.1), and no offloads from the kernel.
  private func setUpHeaders() throws(BackendError) {
    var result = netdev_tap_set_header_length(descriptor, CInt(VirtioNetHeader.size))
    if result == 0 { result = netdev_tap_set_offload(descriptor, 0) }
    guard result == 0 else {
      throw BackendError(
        .system, "setting up the header of \(kind.word) \(interface)", errno: -result,
        advice: "the kernel's TUN driver must support IFF_VNET_HDR and TUNSETVNETHDRSZ")
    }
    if let objection = objection() { throw objection }
  }

  /// What of the interface is not as it was asked for, or nil. Another process can bring that about: most of it belongs to
  /// the interface, not to one queue. May block.
  func objection() -> BackendError? {
    let found = kind.differences(descriptor, isMultiQueue: isMultiQueue)
    guard found >= 0 else { return lossError(errno: -found, "asking about") }
    let texts = [
      (NETDEV_TAP_OTHER_KIND, "it is no \(kind.word)"), (NETDEV_TAP_PACKET_INFO, "it has packet information"),
      (NETDEV_TAP_NO_HEADER, "it has no virtio-net headers"),
      (NETDEV_TAP_OTHER_QUEUES, "it has another kind of queues"),
      (NETDEV_TAP_OTHER_LENGTH, "its headers have another length"),
    ].filter { found & $0.0 != 0 }.map { $0.1 }
    guard !texts.isEmpty else { return nil }
    return BackendError(
      .inUse, "using \(kind.word) \(interface)",
      advice: "\(texts.joined(separator: ", ")): another process has set it up; end it, or take another interface")
  }

  /// Makes sure that the interface is as it was asked for, and has the kernel steer flows to this queue. May block.
  func attach() throws(BackendError) {
    if let objection = objection() { throw objection }
    try setAttached(true)
  }

  /// As `attach`, for the next port, which need not ask then. May block: what the port before it has asked for comes first, or
  /// its detaching would be the last word.
  func prepare() throws(BackendError) {
    let attaching = calls.wait { [self] in Result { () throws(BackendError) in try attach() } }
    try attaching.get()
    isPrepared.store(true, ordering: .releasing)
  }

  /// Whether somebody has prepared it since this was asked last.
  func takePrepared() -> Bool { isPrepared.exchange(false, ordering: .acquiring) }

  /// Lets the kernel steer flows to this queue, or stops it from doing so (tun's IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE). An
  /// interface with one queue has nothing to steer. May block.
  func setAttached(_ attached: Bool) throws(BackendError) {
    guard isMultiQueue else { return }
    // Refused also when the queue is in that state already: what it is in now tells.
    let result = netdev_tap_set_queue(descriptor, attached)
    let found = kind.differences(descriptor, isMultiQueue: isMultiQueue)
    guard found >= 0 else { throw lossError(errno: -found, "asking about") }
    guard (found & NETDEV_TAP_DETACHED == 0) == attached else {
      throw BackendError(
        .system, "\(attached ? "attaching" : "detaching") a queue of \(kind.word) \(interface)", errno: -result,
        advice: "the error says why")
    }
  }

  /// The interface's name now: somebody may have given it another one. May block.
  func interfaceName() throws(BackendError) -> String {
    try Self.interfaceName(of: descriptor, knownAs: interface, kind)
  }

  private static func interfaceName(of descriptor: CInt, knownAs known: String, _ kind: Kind) throws(BackendError)
    -> String
  {
    var bytes = [UInt8](repeating: 0, count: Int(IFNAMSIZ))
    let result = unsafe bytes.withUnsafeMutableBytes { room -> CInt in
      // IFNAMSIZ bytes, as the function asks for.
      guard let start = room.baseAddress else { return -EINVAL }
      // Bytes of an array of UInt8, which has the layout of CChar, and lives until this returns.
      return unsafe netdev_tap_name(descriptor, start.assumingMemoryBound(to: CChar.self))
    }
    guard result == 0 else { throw lossError(errno: -result, "asking about", known, kind) }
    return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }
}
