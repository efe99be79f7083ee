/// Echo requests as bytes, and what becomes of them on the way; sums word by word as RFC 1071 §4.1 spells them out.
enum Ping {
  /// Echo request number `number`, from 10.0.0.1 to 10.0.0.2, 84 bytes of IPv4.
  static func request(_ number: Int) -> [UInt8] {
    var header: [UInt8] = [0x45, 0, 0, 84, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    store(checksum(header), at: 10, in: &header)
    var message: [UInt8] = [
      8, 0, 0, 0, 0x12, 0x34, UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number),
    ]
    message += (0..<56).map { UInt8(truncatingIfNeeded: number &+ $0) }
    store(checksum(message), at: 2, in: &message)
    return Frames.destination + Frames.source + [8, 0] + header + message
  }

  /// The echo reply: addresses swapped, type 0, its checksum made to fit.
  static func answer(to request: [UInt8]) -> [UInt8] {
    var answer = swapped(request)
    answer[34] = 0
    store(0, at: 36, in: &answer)
    store(checksum(Array(answer[34...])), at: 36, in: &answer)
    return answer
  }

  /// Both pairs of addresses swapped and nothing else: no sum changes with it.
  static func swapped(_ frame: [UInt8]) -> [UInt8] {
    Array(frame[6..<12] + frame[0..<6] + frame[12..<26] + frame[30..<34] + frame[26..<30] + frame[34...])
  }

  private static func store(_ sum: UInt16, at offset: Int, in bytes: inout [UInt8]) {
    bytes[offset] = UInt8(sum >> 8)
    bytes[offset + 1] = UInt8(sum & 0xff)
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt16 {
    var sum = 0
    for (position, byte) in bytes.enumerated() { sum += position % 2 == 0 ? Int(byte) << 8 : Int(byte) }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    return UInt16(0xffff - sum)
  }
}
