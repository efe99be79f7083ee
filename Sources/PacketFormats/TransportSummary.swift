extension FrameSummary {
  /// What the line says of a packet's payload.
  struct Transport: ~Escapable {
    private let bytes: RawSpan
    private let `protocol`: IPProtocol
    /// Bytes of the payload by the packet's length fields, as far as the frame has them.
    private let length: Int

    @_lifetime(copy bytes)
    init(_ bytes: RawSpan, _ protocol: IPProtocol, _ length: Int) {
      self.bytes = bytes.extracting(first: max(0, length))
      self.protocol = `protocol`
      self.length = max(0, length)
    }

    /// The line between these two hosts.
    func line(_ source: String, _ destination: String) -> String {
      switch `protocol` {
      case .udp: udp(source, destination)
      case .tcp: tcp(source, destination)
      case .icmpv4: "\(source) > \(destination): " + icmpv4()
      case .icmpv6: "\(source) > \(destination): " + icmpv6()
      default: "\(source) > \(destination): \(`protocol`), length \(length)"
      }
    }

    private func udp(_ source: String, _ destination: String) -> String {
      guard let word = try? bytes.loadUInt64(at: 0) else { return "\(source) > \(destination): [|UDP]" }
      let ports = "\(source).\(word >> 48) > \(destination).\(word >> 32 & 0xFFFF): "
      let said = Int(truncatingIfNeeded: word >> 16 & 0xFFFF)
      guard said >= 8, said <= length else { return ports + "UDP, bad length \(said) > \(length)" }
      return ports + "UDP, length \(said - 8)"
    }

    private func tcp(_ source: String, _ destination: String) -> String {
      guard let first = try? bytes.loadUInt64(at: 0), let acknowledged = try? bytes.loadUInt32(at: 8),
        let front = try? bytes.loadUInt32(at: 12)
      else { return "\(source) > \(destination): [|TCP]" }
      let headerLength = Int(truncatingIfNeeded: front >> 28) * 4
      var line = "\(source).\(first >> 48) > \(destination).\(first >> 32 & 0xFFFF): Flags ["
      let flags = front >> 16 & 0xFF
      // tcpdump's order and letters.
      for (bit, letter) in [(0, "F"), (1, "S"), (2, "R"), (3, "P"), (5, "U"), (6, "E"), (7, "W"), (4, ".")]
        as [(UInt32, String)]
      where flags >> bit & 1 != 0 {
        line += letter
      }
      line += flags == 0 ? "none]" : "]"
      line += ", seq \(first & 0xFFFF_FFFF)"
      if flags & 0x10 != 0 { line += ", ack \(acknowledged)" }
      line += ", win \(front & 0xFFFF)"
      guard headerLength >= 20, headerLength <= length else { return line + ", bad header length \(headerLength)" }
      return line + ", length \(length - headerLength)"
    }

    private func icmpv4() -> String {
      guard let front = try? bytes.loadUInt64(at: 0) else { return "[|ICMP]" }
      let (kind, code) = (UInt8(truncatingIfNeeded: front >> 56), UInt8(truncatingIfNeeded: front >> 48))
      let what: String
      switch kind {
      case 0, 8: what = "echo \(kind == 8 ? "request" : "reply"), id \(front >> 16 & 0xFFFF), seq \(front & 0xFFFF)"
      case 3 where code == 4: what = "unreachable - need to frag (mtu \(front & 0xFFFF))"
      case 3: what = "unreachable, code \(code)"
      case 5: what = "redirect, code \(code)"
      case 11: what = code == 0 ? "time exceeded in-transit" : "time exceeded, code \(code)"
      case 12: what = "parameter problem, octet \(front >> 24 & 0xFF)"
      default: what = "type \(kind), code \(code)"
      }
      return "ICMP \(what), length \(length)"
    }

    private func icmpv6() -> String {
      guard let front = try? bytes.loadUInt64(at: 0) else { return "[|ICMP6]" }
      let (kind, code) = (UInt8(truncatingIfNeeded: front >> 56), UInt8(truncatingIfNeeded: front >> 48))
      let target = IPv6Address(decoding: bytes, at: 8).map { "\($0)" } ?? "[|target]"
      let what: String
      switch kind {
      case 1: what = "unreachable, code \(code)"
      case 2: what = "packet too big, mtu \(front & 0xFFFF_FFFF)"
      case 3: what = code == 0 ? "time exceeded in-transit" : "time exceeded, code \(code)"
      case 4: what = "parameter problem, code \(code), octet \(front & 0xFFFF_FFFF)"
      case 128, 129:
        what = "echo \(kind == 128 ? "request" : "reply"), id \(front >> 16 & 0xFFFF), seq \(front & 0xFFFF)"
      case 133: what = "router solicitation"
      case 134: what = "router advertisement"
      case 135: what = "neighbor solicitation, who has \(target)"
      case 136: what = "neighbor advertisement, tgt is \(target)"
      default: what = "type \(kind), code \(code)"
      }
      return "ICMP6, \(what), length \(length)"
    }
  }
}
