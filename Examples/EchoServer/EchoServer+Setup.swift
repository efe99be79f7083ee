import ArgumentParser
import Glibc
import Netdev
import PacketFormats

// What stands around the heart: addresses, greeting, exit codes.
extension EchoServer {
  /// The addresses to answer for; the host-udp device has one of its own.
  func networks() throws -> [IPv4Network] {
    let texts = address.isEmpty && device.hasPrefix("host-udp:") ? ["10.0.2.15/24"] : address
    guard !texts.isEmpty else {
      throw ValidationError("'\(device)' has no address of its own: give one, such as --address 10.0.0.2/24")
    }
    return try texts.map { text in
      guard let network = IPv4Network(text) else {
        throw ValidationError("'\(text)' is no IPv4 address with a prefix; write it as 10.0.0.2/24")
      }
      return network
    }
  }

  func hardwareAddress(of device: NetworkDevice) throws -> MACAddress {
    let bytes = device.information.hardwareAddress
    guard bytes.count == 6 else {
      throw NetworkDeviceError(.unsupported, "EchoServer", offered: "a device without a hardware address")
    }
    return MACAddress(bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5])
  }

  func greet(_ device: NetworkDevice, _ networks: [IPv4Network]) {
    let information = device.information
    print("\(information.name): \(information.queuePairs) queue pair(s), MTU \(information.mtu); Ctrl-C ends")
    if self.device.hasPrefix("host-udp:") {
      let parts = self.device.dropFirst("host-udp:".count).split(separator: "?")[0].split(separator: ":")
      let (host, port) = parts.count == 2 ? (parts[0], parts[1]) : ("127.0.0.1", "7007")
      print("try:  printf hello | nc -u -w1 \(host) \(port)")
    } else if let network = networks.first {
      print("try:  ping \(network.address)")
    }
    // The line must be there before somebody waits for it, also when the output is a pipe.
    fflush(nil)
  }

  /// One line, and the exit code that sysexits.h has for it.
  func exit(for error: NetworkDeviceError) -> ExitCode {
    var line = "EchoServer: \(error)\n"
    _ = line.withUTF8 { bytes in unsafe write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
    switch error.code {
    case .invalidConfiguration: return ExitCode(EX_USAGE)
    case .notFound, .unsupported: return ExitCode(EX_UNAVAILABLE)
    case .notPermitted: return ExitCode(EX_NOPERM)
    case .busy: return ExitCode(EX_CANTCREAT)
    case .broken: return ExitCode(EX_PROTOCOL)
    default: return ExitCode(EX_OSERR)
    }
  }
}
