import ArgumentParser
import ExampleSupport
import Netdev
import PacketFormats
import Responder

// What stands around the heart: addresses and greeting.
extension EchoServer {
  /// The addresses to answer for, by family.
  struct Networks {
    var ipv4: [IPv4Network] = []
    var ipv6: [IPv6Network] = []
  }

  /// The addresses given; the host-udp device has one of its own.
  func networks() throws -> Networks {
    let texts = address.isEmpty && device.hasPrefix("host-udp:") ? ["10.0.2.15/24"] : address
    guard !texts.isEmpty else {
      throw ValidationError("'\(device)' has no address of its own: give one, such as --address 10.0.0.2/24")
    }
    var networks = Networks()
    for text in texts {
      if let network = IPv4Network(text) {
        networks.ipv4.append(network)
      } else if let network = IPv6Network(text) {
        networks.ipv6.append(network)
      } else {
        throw ValidationError("'\(text)' is no address with a prefix; write it as 10.0.0.2/24 or fd00::2/64")
      }
    }
    return networks
  }

  func responder(at macAddress: MACAddress, _ networks: Networks) throws -> Responder {
    do {
      return try Responder(macAddress: macAddress, addresses: networks.ipv4, ipv6Addresses: networks.ipv6)
    } catch {
      throw ValidationError(error.description)
    }
  }

  func hardwareAddress(of device: NetworkDevice) throws -> MACAddress {
    guard let address = device.information.hardwareAddress else {
      throw NetworkDeviceError(
        .unsupported, "echoing on \(device.information.name)", offered: "a device without a hardware address",
        advice: "choose one on Ethernet")
    }
    return address
  }

  func greet(_ device: NetworkDevice, _ networks: Networks) {
    let information = device.information
    Output.standard.print(
      "\(information.name): \(information.queuePairs) queue pair(s), MTU \(information.mtu); Ctrl-C ends")
    if self.device.hasPrefix("host-udp:") {
      // "host-udp 127.0.0.1:7007": the port that it has, also where the URL left the choice to the kernel.
      let name = information.name.dropFirst("host-udp ".count)
      let colon = name.lastIndex(of: ":") ?? name.endIndex
      let place = [name[..<colon].drop { $0 == "[" }.prefix { $0 != "]" }, name[colon...].dropFirst()]
      Output.standard.print("try:  printf hello | nc -u -w1 \(place.joined(separator: " "))")
    } else if let network = networks.ipv4.first {
      Output.standard.print("try:  ping \(network.address)")
    } else if let network = networks.ipv6.first {
      // A link-local address says nothing without its link.
      let isOnLink = network.address.isLinkLocal && self.device.hasPrefix("tap:")
      let zone = isOnLink ? "%\(self.device.dropFirst("tap:".count).prefix { $0 != "?" })" : ""
      Output.standard.print("try:  ping -6 \(network.address)\(zone)")
    }
  }
}
