internal import CNetdevSystem
internal import Netdev
internal import PacketFormats

/// A device URL taken apart: `scheme:target?key=value&key=value`.
///
/// Every part is checked when it is asked for, and whatever nobody asked for is an error: a misspelt key never passes.
struct DeviceURL {
  let text: String
  let scheme: String
  let target: String
  private var options: [String: String]
  /// The options that somebody has asked for, in this order: those that the device has.
  private var known: [String] = []

  /// What a device URL can begin with.
  static let schemes = "loopback:, tap:, tun:, packet:, host-udp: or vhost-user:"

  init(_ text: String) throws(NetworkDeviceError) {
    self.text = text
    guard let colon = text.firstIndex(of: ":"), colon != text.startIndex else {
      throw NetworkDeviceError(
        .invalidConfiguration, "open", offered: "'\(text)' is no device URL",
        advice: Self.advice(forInterface: text)
          ?? "write it as loopback:, tap:tap0?queues=2, packet:eth0 or host-udp:127.0.0.1:7007")
    }
    scheme = String(text[..<colon])
    let parts = text[text.index(after: colon)...].split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
    target = parts.first.map { String($0) } ?? ""
    options = [:]
    guard parts.count == 2 else { return }
    for option in parts[1].split(separator: "&", omittingEmptySubsequences: false) {
      let pair = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2, !pair[0].isEmpty, !pair[1].isEmpty else {
        throw refuse("the option '\(option)'", "write options as key=value, joined by &")
      }
      guard options.updateValue(String(pair[1]), forKey: String(pair[0])) == nil else {
        throw refuse("'\(pair[0])' twice", "give each option once")
      }
    }
  }

  /// What to write for an interface of this host that was named as if it were a device, with options perhaps; nil where there
  /// is no such interface.
  static func advice(forInterface text: String) -> String? {
    let name = String(text.prefix { $0 != "?" })
    // A string is handed over with its zero.
    guard !name.isEmpty, !name.utf8.contains(0), unsafe netdev_packet_has_interface(name) else { return nil }
    return
      "\(name) is an interface of this host: write packet:\(name) for its frames, or tap:NAME for an interface of your own"
  }

  func refuse(_ what: String, _ advice: String) -> NetworkDeviceError {
    NetworkDeviceError(.invalidConfiguration, "open '\(text)'", offered: what, advice: advice)
  }

  private mutating func take(_ key: String) -> String? {
    known.append(key)
    return options.removeValue(forKey: key)
  }

  /// Takes an option that is a number in `range`.
  mutating func number(_ key: String, in range: ClosedRange<Int>) throws(NetworkDeviceError) -> Int? {
    guard let value = take(key) else { return nil }
    guard let number = Int(value), range.contains(number) else {
      throw refuse("\(key)=\(value)", "\(key) is a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// Takes an option that is 0 or 1.
  mutating func flag(_ key: String) throws(NetworkDeviceError) -> Bool? {
    try number(key, in: 0...1).map { $0 == 1 }
  }

  /// Takes an option that is one of some words.
  mutating func word(_ key: String, of words: [String]) throws(NetworkDeviceError) -> String? {
    guard let value = take(key) else { return nil }
    guard words.contains(value) else {
      throw refuse("\(key)=\(value)", "\(key) is one of \(words.joined(separator: ", "))")
    }
    return value
  }

  /// Takes an option that is the hardware address of one interface.
  mutating func hardwareAddress(_ key: String) throws(NetworkDeviceError) -> MACAddress? {
    guard let value = take(key) else { return nil }
    guard let address = MACAddress(value), address.isUnicast else {
      throw refuse("\(key)=\(value)", "\(key) is an address such as 02:00:00:00:00:01, not a group's")
    }
    return address
  }

  /// Every option has been taken.
  func finish() throws(NetworkDeviceError) {
    guard let key = options.keys.sorted().first else { return }
    throw refuse("the option '\(key)'", "a \(scheme): device has \(known.sorted().joined(separator: ", "))")
  }
}
