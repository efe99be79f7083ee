import NetdevTesting
import PacketFormats
import ReferenceFrames
import Responder
import Testing

/// What a slow reader makes of a frame, byte by byte. It knows the rules, not the code under test.
private enum ReferenceReader {
  /// A frame that may be answered by the host at ``Here``: why it is right, or nothing.
  struct Question {
    var senderMAC: ArraySlice<UInt8>
    var senderIP: ArraySlice<UInt8>
    var kind: Kind
    /// Where the transport header starts, and how long the message is.
    var message: Range<Int>
  }

  enum Kind { case arp, icmp, udp }

  static func question(_ frame: [UInt8]) -> Question? {
    guard frame.count >= 14 else { return nil }
    switch number(frame[12..<14]) {
    case 0x0806:
      guard frame.count >= 42, Array(frame[14..<22]) == [0, 1, 8, 0, 6, 4, 0, 1], Array(frame[38..<42]) == Here.ipBytes
      else { return nil }
      return Question(senderMAC: frame[22..<28], senderIP: frame[28..<32], kind: .arp, message: 14..<42)
    case 0x0800:
      return ipQuestion(frame)
    default:
      return nil
    }
  }

  static func ipQuestion(_ frame: [UInt8]) -> Question? {
    guard frame.count >= 34, Array(frame[0..<6]) == Here.macBytes, frame[14] >> 4 == 4 else { return nil }
    let start = 14 + Int(frame[14] & 0xF) * 4
    let end = 14 + number(frame[16..<18])
    guard start >= 34, end >= start, end <= frame.count, referenceChecksum(frame[14..<start]) == 0 else { return nil }
    guard number(frame[20..<22]) & 0x3FFF == 0, Array(frame[30..<34]) == Here.ipBytes else { return nil }
    switch frame[23] {
    case 1:
      guard end - start >= 8, frame[start] == 8, frame[start + 1] == 0, referenceChecksum(frame[start..<end]) == 0
      else { return nil }
      return Question(senderMAC: frame[6..<12], senderIP: frame[26..<30], kind: .icmp, message: start..<end)
    case 17:
      guard end - start >= 8 else { return nil }
      let length = number(frame[(start + 4)..<(start + 6)])
      guard length >= 8, length <= end - start else { return nil }
      let datagram = start..<(start + length)
      guard number(frame[(start + 6)..<(start + 8)]) == 0 || udpIsValid(frame, datagram) else { return nil }
      return Question(senderMAC: frame[6..<12], senderIP: frame[26..<30], kind: .udp, message: datagram)
    default:
      return nil
    }
  }

  static func udpIsValid(_ frame: [UInt8], _ datagram: Range<Int>) -> Bool {
    referenceChecksum(Array(frame[26..<34]) + [0, 17] + bigEndian(datagram.count, 2) + frame[datagram]) == 0
  }

  /// Whether `reply` is the right answer to `frame`, which asked `question`.
  static func isAnswer(_ reply: [UInt8], to frame: [UInt8], _ question: Question) -> Bool {
    guard reply.count >= 42, reply[0..<6].elementsEqual(question.senderMAC), Array(reply[6..<12]) == Here.macBytes
    else { return false }
    if question.kind == .arp {
      return reply.count == 42 && Array(reply[12..<22]) == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]
        && Array(reply[22..<32]) == Here.macBytes + Here.ipBytes
        && Array(reply[32..<42]) == Array(question.senderMAC) + Array(question.senderIP)
    }
    guard Array(reply[12..<15]) == [8, 0, 0x45], number(reply[16..<18]) == reply.count - 14,
      referenceChecksum(reply[14..<34]) == 0, Array(reply[20..<24]) == [0x40, 0, 64, frame[23]],
      Array(reply[26..<30]) == Here.ipBytes, reply[30..<34].elementsEqual(question.senderIP),
      reply.count == 34 + question.message.count
    else { return false }
    let data = frame[(question.message.lowerBound + 8)..<question.message.upperBound]
    guard reply[42...].elementsEqual(data) else { return false }
    let start = question.message.lowerBound
    if question.kind == .icmp {
      return reply[34] == 0 && reply[35] == 0 && reply[38..<42].elementsEqual(frame[(start + 4)..<(start + 8)])
        && referenceChecksum(reply[34...]) == 0
    }
    return reply[34..<36].elementsEqual(frame[(start + 2)..<(start + 4)])
      && reply[36..<38].elementsEqual(frame[start..<(start + 2)]) && number(reply[40..<42]) != 0
      && number(reply[38..<40]) == reply.count - 34 && udpIsValid(reply, 34..<reply.count)
  }
}

/// Frames that were right once. Each seed is one frame; the same seed is the same frame on every machine.
private struct Mutator {
  var random: SeededRandom

  mutating func frame() -> [UInt8] {
    var bytes = base()
    for _ in 0..<random.below(4) { mutate(&bytes) }
    // Without this the checksums would stop nearly everything, and what is behind them would never be reached.
    if random.below(4) != 0 { repairChecksums(&bytes) }
    return bytes
  }

  private mutating func base() -> [UInt8] {
    let data = random.bytes(random.below(10) == 0 ? random.below(400) : random.below(40))
    let choices: [[UInt8]] = [[1, 1, 1, 0], [148, 4, 0, 0], [7, 7, 4, 0, 0, 0, 0, 0], [131, 3, 4, 0]]
    let options = random.below(3) == 0 ? choices[random.below(4)] : []
    let padding = [UInt8](repeating: 0, count: random.below(20))
    switch random.below(4) {
    case 0: return ARPFrame(padding: padding).bytes
    case 1: return IPv4Frame.icmp(data) { ($0.options, $0.padding) = (options, padding) }.bytes
    case 2: return IPv4Frame.udp(data, checksum: 0) { ($0.options, $0.padding) = (options, padding) }.bytes
    default: return IPv4Frame.udp(data) { ($0.options, $0.padding) = (options, padding) }.bytes
    }
  }

  private mutating func mutate(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else { return }
    // Most of the interest is in the headers.
    let position = random.below(random.below(4) == 0 ? bytes.count : min(bytes.count, 50))
    switch random.below(8) {
    case 0: bytes[position] ^= 1 << UInt8(random.below(8))
    case 1: bytes[position] = UInt8(truncatingIfNeeded: random.next())
    case 2: bytes[position] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.below(6)]
    case 3: bytes.removeLast(random.below(bytes.count + 1))
    case 4: bytes += random.bytes(random.below(30))
    case 5: for index in position..<min(position + 4, bytes.count) { bytes[index] = 0xFF }
    case 6: for index in position..<min(position + 4, bytes.count) { bytes[index] = 0 }
    default: bytes[position] &+= random.below(2) == 0 ? 1 : 0xFF
    }
  }

  private func repairChecksums(_ bytes: inout [UInt8]) {
    guard bytes.count >= 34, bytes[12] == 8, bytes[13] == 0 else { return }
    let start = min(14 + max(Int(bytes[14] & 0xF) * 4, 20), bytes.count)
    (bytes[24], bytes[25]) = (0, 0)
    bytes.replaceSubrange(24..<26, with: bigEndian(referenceChecksum(bytes[14..<start]), 2))
    let end = min(max(14 + number(bytes[16..<18]), start), bytes.count)
    guard end - start >= 8 else { return }
    if bytes[23] == 1 {
      (bytes[start + 2], bytes[start + 3]) = (0, 0)
      bytes.replaceSubrange((start + 2)..<(start + 4), with: bigEndian(referenceChecksum(bytes[start..<end]), 2))
    } else if bytes[23] == 17, bytes[start + 6] != 0 || bytes[start + 7] != 0 {
      let length = min(max(number(bytes[(start + 4)..<(start + 6)]), 8), end - start)
      (bytes[start + 6], bytes[start + 7]) = (0, 0)
      let pseudoHeader = Array(bytes[26..<34]) + [0, 17] + bigEndian(length, 2)
      let checksum = referenceChecksum(pseudoHeader + bytes[start..<(start + length)])
      bytes.replaceSubrange((start + 6)..<(start + 8), with: bigEndian(checksum == 0 ? 0xFFFF : checksum, 2))
    }
  }
}

@Suite("Mutated frames")
struct MutationTests {
  /// 240 000 frames in four runs.
  @Test("A reply is given only to a right question, and is itself right and for the sender", arguments: 1...4)
  func replies(_ seed: UInt64) throws {
    var responder = try makeResponder()
    var mutator = Mutator(random: SeededRandom(seed: seed))
    let frames = 60_000
    var failures = 0
    for index in 0..<frames {
      let frame = mutator.frame()
      // The buffer goes on behind the frame: whatever is there must stay.
      let behind: [UInt8] = index % 2 == 0 ? [] : [0xA5, 0x5A, 0xA5]
      var bytes = frame + behind
      let result = answer(&responder, &bytes, length: frame.count)
      var isRight = Array(bytes[frame.count...]) == behind
      if case .reply(let length) = result {
        if length <= frame.count, let question = ReferenceReader.question(frame) {
          isRight = isRight && ReferenceReader.isAnswer(Array(bytes.prefix(length)), to: frame, question)
        } else {
          isRight = false
        }
      } else {
        isRight = isRight && Array(bytes.prefix(frame.count)) == frame
      }
      if !isRight {
        failures += 1
        if failures <= 5 { Issue.record("seed \(seed), frame \(index): \(result) to \(frame)") }
      }
    }
    #expect(failures == 0)
    #expect(responder.statistics.frames == UInt64(frames))
    // The run is worth something only if every kind of answer and nearly every reason was met.
    #expect(responder.statistics.arpReplies > 1000)
    #expect(responder.statistics.icmpEchoReplies > 1000)
    #expect(responder.statistics.udpEchoReplies > 1000)
    #expect(DropReason.allCases.count { responder.statistics.dropped($0) > 0 } >= 24)
  }

  @Test("A gateway's parser gives payloads inside the frame, and only of right datagrams", arguments: 11...12)
  func udpFrames(_ seed: UInt64) throws {
    var mutator = Mutator(random: SeededRandom(seed: seed))
    var decoded = 0
    for _ in 0..<40_000 {
      let frame = mutator.frame()
      guard let (flow, payload) = try? UDPFrame.decode(frame.raw) else { continue }
      decoded += 1
      let start = payload.lowerBound - 8
      let isRight =
        start >= 34 && payload.upperBound <= frame.count && referenceChecksum(frame[14..<start]) == 0
        && number(frame[start..<(start + 2)]) == Int(flow.sourcePort)
        && (number(frame[(start + 6)..<(start + 8)]) == 0
          || ReferenceReader.udpIsValid(frame, start..<payload.upperBound))
      #expect(isRight, "\(frame)")
      var built = [UInt8](repeating: 0, count: 42) + frame[payload]
      _ = try withMutableSpan(&built) { span throws(PacketFormatError) in
        try flow.encode(into: &span, payloadLength: payload.count)
      }
      let again = try UDPFrame.decode(built.raw)
      #expect(again.flow == flow && again.payload == 42..<built.count)
    }
    #expect(decoded > 5000)
  }

  @Test("Bytes without any sense never stop the responder")
  func noise() throws {
    var responder = try makeResponder()
    var random = SeededRandom(seed: 99)
    for _ in 0..<20_000 {
      var bytes = random.bytes(random.below(90))
      if bytes.count > 15 {
        bytes.replaceSubrange(0..<6, with: Here.macBytes)
        bytes.replaceSubrange(12..<15, with: [8, [0, 6][random.below(2)], 0x40 | bytes[14] & 0xF])
        bytes[6] &= 0xFE
      }
      _ = answer(&responder, &bytes, length: random.below(100))
    }
    #expect(responder.statistics.frames == 20_000)
  }
}
