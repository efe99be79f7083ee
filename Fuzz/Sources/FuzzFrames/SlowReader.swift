// A second, slow opinion on frames: sums taken word by word as RFC 1071 §4.1 spells them out.

/// The checksum of RFC 1071.
func slowChecksum(_ bytes: some Sequence<UInt8>) -> UInt16 {
  var sum = 0
  var isHigh = true
  for byte in bytes {
    sum += isHigh ? Int(byte) << 8 : Int(byte)
    isHigh.toggle()
  }
  while sum > 0xffff { sum = (sum & 0xffff) + sum >> 16 }
  return UInt16(0xffff - sum)
}

func number(_ bytes: some Sequence<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }

/// What is wrong with a frame that the responder has made; nil when nothing is.
func flaw(of frame: [UInt8], isAdvertisement: Bool) -> String? {
  guard Array(frame[6..<12]) == Host.mac else { return "it does not come from us" }
  let goesToAllNodes = Array(frame[0..<6]) == [0x33, 0x33, 0, 0, 0, 1]
  guard frame[0] & 1 == 0 || isAdvertisement && goesToAllNodes else { return "it goes to a group" }
  switch number(frame[12..<14]) {
  case 0x0806:
    guard frame.count == 42, Array(frame[14..<22]) == [0, 1, 8, 0, 6, 4, 0, 2], Array(frame[22..<28]) == Host.mac,
      Array(frame[32..<38]) == Array(frame[0..<6])
    else { return "its ARP reply is none" }
    return nil
  case 0x0800:
    guard frame[14] == 0x45, number(frame[16..<18]) == frame.count - 14 else { return "its IPv4 length" }
    guard slowChecksum(frame[14..<34]) == 0 else { return "its header checksum" }
    let pseudo =
      Array(frame[26..<34]) + [0, frame[23]] + [UInt8((frame.count - 34) >> 8), UInt8((frame.count - 34) & 255)]
    return transportFlaw(of: frame, at: 34, kind: frame[23], pseudo: pseudo, icmp: 1, reply: 0)
  case 0x86dd:
    guard frame[14] >> 4 == 6, number(frame[18..<20]) == frame.count - 54 else { return "its IPv6 length" }
    let pseudo =
      Array(frame[22..<54]) + [
        0, 0, UInt8((frame.count - 54) >> 8), UInt8((frame.count - 54) & 255), 0, 0, 0, frame[20],
      ]
    if isAdvertisement {
      guard frame[21] == 255, slowChecksum(pseudo + frame[54...]) == 0 else { return "its advertisement" }
      return nil
    }
    return transportFlaw(of: frame, at: 54, kind: frame[20], pseudo: pseudo, icmp: 58, reply: 129)
  default: return "its EtherType"
  }
}

private func transportFlaw(
  of frame: [UInt8], at start: Int, kind: UInt8, pseudo: [UInt8], icmp: UInt8, reply: UInt8
) -> String? {
  let message = frame[start...]
  guard message.count >= 8 else { return "nothing in it" }
  switch kind {
  case icmp:
    guard message[start] == reply, message[start + 1] == 0 else { return "its ICMP message is no echo reply" }
    guard slowChecksum((icmp == 58 ? pseudo : []) + message) == 0 else { return "its ICMP checksum" }
  case 17:
    guard number(message[start + 4..<start + 6]) == message.count else { return "its UDP length" }
    guard number(message[start + 6..<start + 8]) != 0 else { return "it has no UDP checksum" }
    guard slowChecksum(pseudo + message) == 0 else { return "its UDP checksum" }
  default: return "its protocol \(kind)"
  }
  return nil
}
