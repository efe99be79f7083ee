import FuzzSupport
import Netdev
import PacketFormats
import VhostUser
import Virtio

@testable import NetdevDevices

// Device URLs: what comes from a command line or a file. Nothing is opened.

/// Before the first input.
@c(LLVMFuzzerInitialize)
public func initialize(_ count: UnsafeMutableRawPointer, _ arguments: UnsafeMutableRawPointer) -> CInt {
  Seeds.writeIfAsked(urlSeeds.map { Array($0.utf8) })
  return 0
}

/// One input: the text of a URL, refused with a typed error or taken with values in their ranges.
@c(LLVMFuzzerTestOneInput)
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var input = InputReader(bytes, count)
  let text = String(decoding: input.rest(), as: UTF8.self)
  do throws(NetworkDeviceError) {
    check(try DeviceSpecification(text), text)
  } catch {
    promise(
      [.invalidConfiguration, .unsupported].contains(error.code), "a refusal says that the URL is wrong: \(error)")
    promise(!error.description.isEmpty, "a refusal has words")
  }
  return 0
}

private func check(_ specification: DeviceSpecification, _ text: String) {
  promise(specification.queuePairs.map { (1...256).contains($0) } ?? true, "queues of \(text)")
  promise(specification.queueSize.map { (2...32_768).contains($0) } ?? true, "queue_size of \(text)")
  switch specification.kind {
  case .loopback: promise(text.hasPrefix("loopback:"), "\(text) is what it says")
  case .tap(let name): promise(!name.isEmpty && text.hasPrefix("tap:"), "\(text) is what it says")
  case .tun(let name): promise(!name.isEmpty && text.hasPrefix("tun:"), "\(text) is what it says")
  case .packet(let name, _): promise(!name.isEmpty && text.hasPrefix("packet:"), "\(text) is what it says")
  case .hostUDP(let address, _): promise(!address.isEmpty && text.hasPrefix("host-udp:"), "\(text) is what it says")
  case .vhostUser(let options):
    promise((1...107).contains(options.path.utf8.count), "a path that a socket can have: \(text)")
    promise(options.mtu.map { (68...9216).contains($0) } ?? true, "mtu of \(text)")
    promise(options.requestTimeout > .zero && options.connectTimeout > .zero, "time-outs of \(text)")
    promise(options.hardwareAddress.map { $0.isUnicast } ?? true, "mac of \(text)")
  }
}

private let urlSeeds = [
  "loopback:", "loopback:?lossless=1&queues=2&queue_size=256", "tap:tap0?queues=4&mrg_rxbuf=0&event_idx=1&indirect=0",
  "packet:eth0?queues=2&promiscuous=1", "lo:?queues=2", "host-udp:127.0.0.1:7007?placement=own",
  "vhost-user:/run/switch/port0?server=1&connect_timeout=5&timeout=3",
  "vhost-user:/a?mac=02:00:00:00:00:01&mtu=1500&kicks=0&reconnect=0&in_flight=fail&serve_timeout=9",
  "vfio:0000:00:04.0",
]
