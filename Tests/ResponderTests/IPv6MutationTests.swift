import NetdevTesting
import PacketFormats
import ReferenceFrames
import Responder
import Testing

/// What a slow reader makes of an IPv6 frame, byte by byte. It knows the rules, not the code under test.
private enum ReferenceReader {
  enum Question {
    /// Addresses of the answer, and what is to be behind its IPv6 header: the message with its first bytes as asked.
    case echo(from: [[UInt8]], to: [UInt8], message: [UInt8])
    case udp(from: [UInt8], to: [UInt8], datagram: [UInt8])
    case solicitation(target: [UInt8], asker: [UInt8], mac: [UInt8])
  }

  static let ours = [Here.ipv6Bytes, Here.linkLocalBytes]
  static let groups = [IPv6Bytes.allNodes, IPv6Bytes.solicitedNode(Here.ipv6Bytes)]

  /// A frame that may be answered by the host at ``Here``, or nothing.
  static func question(_ frame: [UInt8]) -> Question? {
    guard frame.count >= 54, Array(frame[12..<14]) == [0x86, 0xDD], frame[14] >> 4 == 6 else { return nil }
    let end = 54 + number(frame[18..<20])
    guard end <= frame.count else { return nil }
    let (source, destination) = (Array(frame[22..<38]), Array(frame[38..<54]))
    guard ours.contains(destination) || groups.contains(destination), !ours.contains(source) else { return nil }
    guard source[0] != 0xFF, source != IPv6Bytes.loopback, Array(source[..<12]) != Array(IPv6Bytes.mapped[..<12])
    else { return nil }
    guard let (proto, start, wasFragment) = transport(frame, end: end) else { return nil }
    let message = Array(frame[start..<end])
    if proto == 17 {
      guard message.count >= 8, ours.contains(destination), source != IPv6Bytes.unspecified else { return nil }
      let length = number(message[4..<6])
      guard length >= 8, length <= message.count, number(message[6..<8]) != 0 else { return nil }
      let datagram = Array(message[..<length])
      guard IPv6Frame.checksum(source, destination, 17, datagram) == 0 else { return nil }
      return .udp(from: destination, to: source, datagram: datagram)
    }
    guard proto == 58, message.count >= 8, IPv6Frame.checksum(source, destination, 58, message) == 0, message[1] == 0
    else { return nil }
    if message[0] == 128, source != IPv6Bytes.unspecified {
      return .echo(from: ours.contains(destination) ? [destination] : ours, to: source, message: message)
    }
    guard message[0] == 135, message.count >= 24, frame[21] == 255, !wasFragment else { return nil }
    let target = Array(message[8..<24])
    guard ours.contains(target), let mac = sender(message) else { return nil }
    if source == IPv6Bytes.unspecified {
      guard Array(destination[..<13]) == Array(groups[1][..<13]), mac.isEmpty else { return nil }
      return .solicitation(target: target, asker: IPv6Bytes.allNodes, mac: [0x33, 0x33, 0, 0, 0, 1])
    }
    return .solicitation(target: target, asker: source, mac: mac.isEmpty ? Array(frame[6..<12]) : mac)
  }

  /// Protocol and place of what is behind the extension headers.
  static func transport(_ frame: [UInt8], end: Int) -> (UInt8, Int, Bool)? {
    var (next, position, wasFragment) = (frame[20], 54, false)
    while [0, 43, 44, 60].contains(next) {
      guard position + 8 <= end, next != 0 || position == 54 else { return nil }
      let length = next == 44 ? 8 : 8 + 8 * Int(frame[position + 1])
      guard position + length <= end else { return nil }
      if next == 44 {
        guard frame[position + 2] == 0, frame[position + 3] & 0xF9 == 0 else { return nil }
        wasFragment = true
      } else if next == 43 {
        guard frame[position + 3] == 0 else { return nil }
      } else {
        var option = position + 2
        while option < position + length {
          if frame[option] == 0 {
            option += 1
            continue
          }
          guard option + 1 < position + length, frame[option] < 0x40 else { return nil }
          option += 2 + Int(frame[option + 1])
        }
        guard option == position + length else { return nil }
      }
      (next, position) = (frame[position], position + length)
    }
    return (next, position, wasFragment)
  }

  /// The source link-layer address of a solicitation: empty without one, nothing if the options are wrong.
  static func sender(_ message: [UInt8]) -> [UInt8]? {
    var position = 24
    var mac: [UInt8] = []
    while position < message.count {
      guard position + 1 < message.count, message[position + 1] > 0 else { return nil }
      let length = 8 * Int(message[position + 1])
      guard position + length <= message.count else { return nil }
      if message[position] == 1 {
        guard length == 8 else { return nil }
        if mac.isEmpty { mac = Array(message[(position + 2)..<(position + 8)]) }
      }
      position += length
    }
    return mac
  }

  /// Whether `reply` is the right answer to `frame`, which asked `question`.
  static func isAnswer(_ reply: [UInt8], to frame: [UInt8], _ question: Question) -> Bool {
    switch question {
    case .solicitation(let target, let asker, let mac):
      let flags: UInt8 = asker == IPv6Bytes.allNodes ? 0x20 : 0x60
      return reply == IPv6Frame.answer(for: target, to: asker, mac: mac, flags: flags)
    case .echo(let sources, let asker, let message):
      guard reply.count == 54 + message.count, sources.contains(Array(reply[22..<38])) else { return false }
      let expected = IPv6Frame.icmp(kind: 129, rest: Array(message[4..<8]), Array(message[8...])) {
        answerHeader(&$0, frame, from: Array(reply[22..<38]), to: asker)
      }
      return reply == expected.bytes
    case .udp(let source, let asker, let datagram):
      let (from, to) = (number(datagram[2..<4]), number(datagram[0..<2]))
      let expected = IPv6Frame.udp(from: UInt16(from), to: UInt16(to), Array(datagram[8...])) {
        answerHeader(&$0, frame, from: source, to: asker)
      }
      return reply == expected.bytes
    }
  }

  private static func answerHeader(_ answer: inout IPv6Frame, _ frame: [UInt8], from: [UInt8], to: [UInt8]) {
    (answer.sourceMAC, answer.destinationMAC) = (Here.macBytes, Array(frame[6..<12]))
    (answer.source, answer.destination, answer.flowLabel, answer.hopLimit) = (from, to, 0, 64)
    answer.trafficClass = UInt8(number(frame[14..<16]) >> 4 & 0xFC)
  }
}

/// Frames that were right once. Each seed is one frame; the same seed is the same frame on every machine.
private struct Mutator {
  var random: SeededRandom

  mutating func frame() -> [UInt8] {
    var bytes = base()
    for _ in 0..<random.below(4) { mutate(&bytes) }
    // Without this the checksums would stop nearly everything, and what is behind them would never be reached.
    if random.below(4) != 0 { repairChecksum(&bytes) }
    return bytes
  }

  private mutating func base() -> [UInt8] {
    let data = random.bytes(random.below(10) == 0 ? random.below(400) : random.below(40))
    let choices: [(number: UInt8, bytes: [UInt8])] = [
      (0, [0, 0, 1, 4, 0, 0, 0, 0]), (60, [0, 1, 5, 2, 0, 0, 0x3E, 8, 1, 2, 3, 4, 5, 6, 7, 8]),
      (43, [0, 0, 0, 0, 0, 0, 0, 0]), (44, [0, 0, 0, 0, 0, 0, 0, 1]), (60, [0, 0, 0xC2, 4, 0, 1, 0, 0]),
      (43, [0, 0, 4, 1, 0, 0, 0, 0]), (44, [0, 0, 0, 9, 0, 0, 0, 1]),
    ]
    let chain = random.below(3) == 0 ? (0...random.below(3)).map { _ in choices[random.below(7)] } : []
    let padding = [UInt8](repeating: 0, count: random.below(20))
    let change: (inout IPv6Frame) -> Void = { ($0.extensions, $0.padding) = (chain, padding) }
    let target = random.below(2) == 0 ? Here.ipv6Bytes : Here.linkLocalBytes
    let options: [UInt8] = random.below(2) == 0 ? [] : [14, 1, 1, 2, 3, 4, 5, 6]
    switch random.below(8) {
    case 0, 1: return IPv6Frame.icmp(data, change).bytes
    case 2:
      return IPv6Frame.icmp(data) {
        change(&$0)
        $0.destination = ReferenceReader.groups[data.count & 1]
      }.bytes
    case 3: return IPv6Frame.solicitation(target: target, change).bytes
    case 4: return IPv6Frame.solicitation(target: target, options: options + [1, 1, 2, 0, 0, 0, 0, 7], change).bytes
    case 5: return IPv6Frame.probe(target: target, options: options, change).bytes
    case 6: return IPv6Frame.advertisement(target: data.count & 1 == 0 ? target : There.ipv6Bytes, change).bytes
    default: return IPv6Frame.udp(data, change).bytes
    }
  }

  private mutating func mutate(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else { return }
    // Most of the interest is in the headers.
    let position = random.below(random.below(4) == 0 ? bytes.count : min(bytes.count, 90))
    switch random.below(8) {
    case 0: bytes[position] ^= 1 << UInt8(random.below(8))
    case 1: bytes[position] = UInt8(truncatingIfNeeded: random.next())
    case 2: bytes[position] = [0, 1, 0x3A, 0x2C, 0xFE, 0xFF][random.below(6)]
    case 3: bytes.removeLast(random.below(bytes.count + 1))
    case 4: bytes += random.bytes(random.below(30))
    case 5: for index in position..<min(position + 4, bytes.count) { bytes[index] = 0xFF }
    case 6: for index in position..<min(position + 16, bytes.count) { bytes[index] = 0 }
    default: bytes[position] &+= random.below(2) == 0 ? 1 : 0xFF
    }
  }

  private func repairChecksum(_ bytes: inout [UInt8]) {
    guard bytes.count >= 54, bytes[12] == 0x86, bytes[13] == 0xDD else { return }
    let end = min(54 + number(bytes[18..<20]), bytes.count)
    guard let (proto, start, _) = ReferenceReader.transport(bytes, end: end) else { return }
    let field = start + (proto == 58 ? 2 : 6)
    guard proto == 58 || proto == 17, end - start >= 8, proto == 58 || number(bytes[field..<(field + 2)]) != 0
    else { return }
    let length = proto == 58 ? end - start : min(max(number(bytes[(start + 4)..<(start + 6)]), 8), end - start)
    bytes.replaceSubrange(field..<(field + 2), with: [0, 0])
    var checksum = IPv6Frame.checksum(
      Array(bytes[22..<38]), Array(bytes[38..<54]), proto, Array(bytes[start..<(start + length)]))
    if proto == 17, checksum == 0 { checksum = 0xFFFF }
    bytes.replaceSubrange(field..<(field + 2), with: bigEndian(checksum, 2))
  }
}

@Suite("Mutated IPv6 frames")
struct IPv6MutationTests {
  /// 80 000 frames in four runs.
  @Test("A reply is given only to a right question, and is itself right and for the sender", arguments: 1...4)
  func replies(_ seed: UInt64) throws {
    var responder = try makeIPv6Responder()
    var mutator = Mutator(random: SeededRandom(seed: seed))
    let frames = 20_000
    var failures = 0
    for index in 0..<frames {
      let frame = mutator.frame()
      // The buffer goes on behind the frame: whatever is there must stay, but for the end of an advertisement.
      let behind: [UInt8] = index % 2 == 0 ? [] : [0xA5, 0x5A, 0xA5, 0x5A, 0xA5, 0x5A, 0xA5, 0x5A, 0xA5, 0x5A]
      var bytes = frame + behind
      let result = answer(&responder, &bytes, length: frame.count)
      var isRight = true
      if case .reply(let length) = result {
        let isAdvertisement = length == 86 && bytes[54] == 136
        isRight = length <= frame.count || isAdvertisement
        isRight = isRight && bytes[max(length, frame.count)...] == (frame + behind)[max(length, frame.count)...]
        if let question = ReferenceReader.question(frame) {
          isRight = isRight && ReferenceReader.isAnswer(Array(bytes.prefix(length)), to: frame, question)
        } else {
          isRight = false
        }
      } else {
        isRight = bytes == frame + behind
      }
      if !isRight {
        failures += 1
        if failures <= 5 { Issue.record("seed \(seed), frame \(index): \(result) to \(frame)") }
      }
    }
    #expect(failures == 0)
    let statistics = responder.statistics
    #expect(statistics.frames == UInt64(frames))
    // The run is worth something only if every kind of answer and nearly every reason was met.
    #expect(statistics.neighborReplies > 1000 && statistics.icmpEchoReplies > 1000 && statistics.udpEchoReplies > 400)
    #expect(DropReason.allCases.count { statistics.dropped($0) > 0 } >= 26)
  }

  @Test("Bytes without any sense never stop the responder")
  func noise() throws {
    var responder = try makeIPv6Responder()
    var random = SeededRandom(seed: 99)
    let protocols: [UInt8] = [0, 17, 43, 44, 58, 60]
    for _ in 0..<20_000 {
      var bytes = random.bytes(random.below(140))
      if bytes.count > 54 {
        bytes.replaceSubrange(0..<6, with: Here.macBytes)
        bytes.replaceSubrange(12..<15, with: [0x86, 0xDD, 0x60])
        bytes.replaceSubrange(18..<21, with: [0, UInt8(bytes.count - 54), protocols[random.below(6)]])
        bytes.replaceSubrange(38..<54, with: Here.ipv6Bytes)
        for index in stride(from: 54, to: bytes.count, by: 8) where random.below(2) == 0 {
          bytes[index] = protocols[random.below(6)]
        }
        bytes[6] &= 0xFE
      }
      _ = answer(&responder, &bytes, length: random.below(150))
    }
    #expect(responder.statistics.frames == 20_000)
  }
}
