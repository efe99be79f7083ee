public import Netdev
import PacketFormats

extension Responder {
  /// Answers a received packet in place.
  ///
  /// - Returns: true when the packet now is the answer: send it. False when there is nothing to say; the reason is counted.
  @inlinable public mutating func answer(_ packet: inout Packet) -> Bool {
    let length = packet.count
    // A neighbor solicitation without options is this long, with Ethernet padding or without; hardly anything else is.
    if length >= 78, length < 86 { return answerGrowing(&packet) }
    let answer = packet.withMutableBytes { bytes in self.answer(&bytes) }
    guard case .reply(let length) = answer else { return false }
    // An answer is never longer than what it answers, so the frame only gets shorter: padding is cut.
    packet.truncate(to: length)
    return true
  }

  /// The same for a packet whose answer may be longer than itself: the buffer's rest is used.
  @usableFromInline
  mutating func answerGrowing(_ packet: inout Packet) -> Bool {
    let length = packet.count
    let isIPv6 = packet.withBytes { (try? EthernetHeader(decoding: $0))?.etherType == .ipv6 }
    // Without the room, the solicitation is dropped and counted.
    if isIPv6 { try? packet.resize(to: Responder.advertisementLength) }
    let answer = packet.withMutableBytes { bytes in self.answer(&bytes, length: length) }
    guard case .reply(let replyLength) = answer else {
      packet.truncate(to: length)
      return false
    }
    packet.truncate(to: replyLength)
    return true
  }
}
