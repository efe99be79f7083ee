/// Makes checksums right as far as a frame lets itself be read. Without this they would stop nearly every mutation, and what is
/// behind them would never be reached.
enum Repair {
  static func checksums(of frame: inout [UInt8]) {
    guard frame.count >= 34 else { return }
    switch number(frame[12..<14]) {
    case 0x0800:
      let start = 14 + Int(frame[14] & 15) * 4
      let end = 14 + number(frame[16..<18])
      guard start >= 34, end >= start, end <= frame.count else { return }
      store(slowChecksum(zeroed(frame, 24)[14..<start]), at: 24, in: &frame)
      let pseudo = Array(frame[26..<34]) + [0, frame[23]]
      transport(of: &frame, start..<end, kind: frame[23], pseudo: pseudo, icmp: 1)
    case 0x86dd:
      guard frame.count >= 54 else { return }
      var (kind, start) = (frame[20], 54)
      let end = 54 + number(frame[18..<20])
      guard end <= frame.count else { return }
      // Extension headers that have a length; a fragment header has eight bytes.
      while [0, 43, 44, 60].contains(kind), end - start >= 8 {
        let length = kind == 44 ? 8 : (Int(frame[start + 1]) + 1) * 8
        (kind, start) = (frame[start], start + length)
      }
      guard start <= end else { return }
      transport(of: &frame, start..<end, kind: kind, pseudo: Array(frame[22..<54]) + [0, 0, 0, kind], icmp: 58)
    default: return
    }
  }

  private static func transport(
    of frame: inout [UInt8], _ message: Range<Int>, kind: UInt8, pseudo: [UInt8], icmp: UInt8
  ) {
    guard message.count >= 8 else { return }
    if kind == icmp {
      let place = message.lowerBound + 2
      let covered = (icmp == 58 ? pseudo + length(message.count) : []) + zeroed(frame, place)[message]
      store(slowChecksum(covered), at: place, in: &frame)
    } else if kind == 17 {
      let size = number(frame[message.lowerBound + 4..<message.lowerBound + 6])
      let place = message.lowerBound + 6
      // A datagram without a checksum stays so.
      guard size >= 8, size <= message.count, number(frame[place..<place + 2]) != 0 else { return }
      let datagram = zeroed(frame, place)[message.lowerBound..<message.lowerBound + size]
      let sum = slowChecksum(pseudo + length(size) + datagram)
      store(sum == 0 ? 0xffff : sum, at: place, in: &frame)
    }
  }

  private static func length(_ count: Int) -> [UInt8] { [UInt8(count >> 8 & 255), UInt8(count & 255)] }

  private static func zeroed(_ frame: [UInt8], _ place: Int) -> [UInt8] {
    var frame = frame
    store(0, at: place, in: &frame)
    return frame
  }

  private static func store(_ value: UInt16, at place: Int, in frame: inout [UInt8]) {
    frame[place] = UInt8(value >> 8)
    frame[place + 1] = UInt8(value & 255)
  }
}
