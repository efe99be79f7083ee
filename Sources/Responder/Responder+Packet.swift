public import Netdev

extension Responder {
  /// Answers a received packet in place.
  ///
  /// - Returns: true when the packet now is the answer: send it. False when there is nothing to say; the reason is counted.
  @inlinable public mutating func answer(_ packet: inout Packet) -> Bool {
    let answer = packet.withMutableBytes { bytes in self.answer(&bytes) }
    guard case .reply(let length) = answer else { return false }
    // An answer is never longer than what it answers, so the frame only gets shorter: padding is cut.
    packet.truncate(to: length)
    return true
  }
}
