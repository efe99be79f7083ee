import CNetdevSystem
import PacketFormats
import TestSupport

@testable import VirtioDevice

/// An interface of either kind, and frames that cross it.
extension TapQueue.Kind {
  static let all: [TapQueue.Kind] = [.tap, .tun]

  func open(_ name: String = "tap0", queues: Int = 1) throws(BackendError) -> TapBackend {
    try TapBackend(name, queues: queues, isLayer3: self == .tun)
  }

  func makePersistent(_ name: String, multiQueue: Bool) -> CInt {
    shell("ip tuntap add dev \(name) mode \(mode) \(multiQueue ? "multi_queue" : "")")
  }

  /// A frame as the driver has it: of a type that nobody answers, or with a packet that nobody does.
  func frame(_ count: Int, seed: Int = 0) -> [UInt8] {
    guard self == .tun else { return VirtioDeviceTests.frame(count, seed: seed) }
    let header = [TunLink.router, MACAddress(2, 0, 0, 0, 0, 8)].flatMap { address in (0..<6).map { address[$0] } }
    // IPv4, to and from a network for examples (RFC 5737), of an experimental protocol (RFC 3692).
    let length = count - 14
    let packet: [UInt8] = [0x45, 0, UInt8(length >> 8), UInt8(length & 0xFF), 0, 0, 0, 0, 64, 253, 0, 0]
    let addresses: [UInt8] = [192, 0, 2, 1, 192, 0, 2, 2]
    return Array((header + [8, 0] + packet + addresses + pattern(max(length - 20, 0), seed: seed)).prefix(count))
  }

  /// Such a frame as the interface has it.
  func onWire(_ count: Int, seed: Int = 0) -> [UInt8] {
    let frame = frame(count, seed: seed)
    return self == .tun ? Array(frame.dropFirst(14)) : frame
  }

  /// As another program might open a queue of it.
  func openStranger(_ name: String = "tap0", withHeaders: Bool) -> CInt {
    openTapQueue(name, isTun: self == .tun, withHeaders: withHeaders)
  }

  func differences(_ descriptor: CInt, headerLength: CInt) -> CInt {
    switch self {
    case .tap: netdev_tap_differences(descriptor, true, headerLength)
    case .tun: netdev_tun_differences(descriptor, true, headerLength)
    }
  }
}
