internal import CNetdevSystem
internal import Glibc

/// One open queue of a TAP interface: a descriptor that is closed exactly once, when the last holder lets go.
///
/// The back-end holds its queues from opening to closing, a port holds its own while it serves. Neither can close a
/// descriptor that the other still reads from, and no number is ever closed twice.
final class TapQueue: Sendable {
  /// Non-blocking, close-on-exec.
  let descriptor: CInt
  /// Whether the interface has several queues, so that this one can be attached and detached.
  let isMultiQueue: Bool

  private init(descriptor: CInt, isMultiQueue: Bool) {
    self.descriptor = descriptor
    self.isMultiQueue = isMultiQueue
  }

  deinit { netdev_close(descriptor) }

  /// Lets the kernel steer flows to this queue, or stops it from doing so (tun's IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE). An
  /// interface with one queue has nothing to steer.
  func setAttached(_ attached: Bool) {
    guard isMultiQueue else { return }
    // Refused only when the queue is in that state already.
    _ = netdev_tap_set_queue(descriptor, attached)
  }

  /// Opens all queues of an interface, which is made if there is none of this name.
  ///
  /// - Parameters:
  ///   - name: up to 15 bytes; empty lets the kernel choose.
  ///   - count: at least 1.
  /// - Returns: the queues, still attached, and the name of the interface.
  static func open(name: String, count: Int) throws(BackendError) -> (queues: [TapQueue], name: String) {
    try check(name: name)
    var queues: [TapQueue] = []
    var kernelName = name
    for index in 0..<count {
      var step: CInt = 0
      var isMultiQueue = count > 1
      var result = unsafe netdev_tap_open(kernelName, isMultiQueue, &step)
      if result == -EINVAL, step == 1, count == 1 {
        // An interface that somebody made with multi_queue: one of its queues will do.
        isMultiQueue = true
        result = unsafe netdev_tap_open(kernelName, true, &step)
      }
      guard result >= 0 else {
        throw refusal(errno: -result, opening: step == 0, name: kernelName, index: index, count: count)
      }
      let queue = TapQueue(descriptor: result, isMultiQueue: isMultiQueue)
      if index == 0 { kernelName = try interfaceName(of: queue) }
      try queue.setUpHeaders(name: kernelName)
      queues.append(queue)
    }
    return (queues, kernelName)
  }

  /// The header of virtio-net 1.0 in front of each frame (12 bytes, VIRTIO 1.4 §5.1.9.3.1), and no offloads from the kernel.
  private func setUpHeaders(name: String) throws(BackendError) {
    var result = netdev_tap_set_header_length(descriptor, 12)
    if result == 0 { result = netdev_tap_set_offload(descriptor, 0) }
    guard result == 0 else {
      throw BackendError(
        .system, "setting up the header of TAP interface \(name)", errno: -result,
        advice: "the kernel's TUN driver must support IFF_VNET_HDR and TUNSETVNETHDRSZ")
    }
  }

  private static func interfaceName(of queue: TapQueue) throws(BackendError) -> String {
    var bytes = [UInt8](repeating: 0, count: Int(IFNAMSIZ))
    let result = unsafe bytes.withUnsafeMutableBytes { room -> CInt in
      // IFNAMSIZ bytes, as the function asks for.
      guard let start = room.baseAddress else { return -EINVAL }
      return unsafe netdev_tap_name(queue.descriptor, start.assumingMemoryBound(to: CChar.self))
    }
    guard result == 0 else {
      throw BackendError(
        .system, "asking for the name of a TAP interface", errno: -result,
        advice: "the interface has gone; open it again")
    }
    return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }

  // MARK: Errors

  private static func check(name: String) throws(BackendError) {
    guard name.utf8.count < Int(IFNAMSIZ) else {
      throw BackendError(
        .invalidConfiguration, "opening TAP interface \(name)", errno: ENAMETOOLONG,
        advice: "the name of an interface has at most 15 bytes")
    }
    // The kernel's dev_valid_name, and no '%', which it would take for a pattern.
    let isValid =
      name != "." && name != ".."
      && name.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }
      && !name.utf8.contains(UInt8(ascii: "%"))
    guard isValid else {
      throw BackendError(
        .invalidConfiguration, "opening TAP interface \(name)", errno: EINVAL,
        advice: "the name of an interface has no spaces, no '/', ':' or '%'")
    }
  }

  private static func refusal(errno: CInt, opening: Bool, name: String, index: Int, count: Int) -> BackendError {
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
          .system, operation, errno: errno, advice: "see the error number: is a limit of open files reached?")
      }
    }
    let operation = "attaching queue \(index) of \(count) of TAP interface \(name)"
    switch errno {
    case EPERM, EACCES:
      return BackendError(
        .permission, operation, errno: errno,
        advice: "run with CAP_NET_ADMIN, or let root make the interface for you: "
          + "ip tuntap add dev \(name) mode tap user $USER" + (count > 1 ? " multi_queue" : ""))
    case EBUSY:
      return BackendError(
        .inUse, operation, errno: errno,
        advice: "another process has this interface, or it is not a TAP interface: take another name")
    case EINVAL:
      return BackendError(
        .invalidConfiguration, operation, errno: errno,
        advice: count > 1
          ? "an interface of this name exists and is not a TAP interface with several queues: take another name or one "
            + "queue, or make it with ip tuntap add dev \(name) mode tap multi_queue"
          : "an interface of this name exists and is not a TAP interface: take another name")
    case E2BIG:
      return BackendError(
        .notOffered, operation, errno: errno,
        advice: "the kernel gives a TAP interface no more queues: ask for \(index) or fewer")
    default:
      return BackendError(.system, operation, errno: errno, advice: "see the error number")
    }
  }
}
