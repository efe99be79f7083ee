public import Netdev
import PacketFormats

extension Responder {
  /// Answers a received packet: in place if this is the only reference to it, else in a copy that the variable then holds.
  ///
  /// The frame is looked at first. A packet that is not answered is not changed, so one that somebody else holds too is not
  /// copied for it.
  ///
  /// - Returns: true when the packet now is the answer: send it. False when there is nothing to say; the reason is counted.
  public mutating func answer(_ packet: inout Packet) -> Bool {
    // In several buffers it is put into one piece to be read at all; then it may as well be the piece that is written.
    if packet.segmentCount > 1 { packet.withMutableBytes { _ in } }
    let decision = packet.withBytes { decide($0, room: .max) }
    guard case .reply(let reply) = decision else {
      _ = count(decision)
      return false
    }
    // An advertisement may be longer than what it answers, all else is shorter: padding is cut, options are left out.
    if reply.length > packet.count {
      do { try packet.resize(to: reply.length) } catch {
        _ = count(.drop(.noRoom))
        return false
      }
    }
    packet.withMutableBytes { bytes in write(reply, into: &bytes) }
    packet.truncate(to: reply.length)
    _ = count(decision)
    return true
  }
}
