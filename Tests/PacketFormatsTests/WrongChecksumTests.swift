import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

/// A change brings checksums along by what changed. A frame that was wrong is wrong by the same afterwards, and one that was
/// right is right, as a receiver sees it that sums everything up anew.
@Suite("Wrong checksums stay wrong") struct WrongChecksumTests {
  /// A transport whose checksum the changes bring along.
  struct Kind: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let proto: UInt8
    /// Where the checksum is in the header.
    let field: Int
    var isIPv6 = false

    static let all = [false, true].flatMap { isIPv6 in
      [
        Kind(testDescription: "TCP", proto: 6, field: 16, isIPv6: isIPv6),
        Kind(testDescription: "UDP", proto: 17, field: 6, isIPv6: isIPv6),
        Kind(testDescription: "DCCP", proto: 33, field: 6, isIPv6: isIPv6),
        Kind(testDescription: "UDP-Lite", proto: 136, field: 6, isIPv6: isIPv6),
        Kind(testDescription: "ICMP", proto: isIPv6 ? 58 : 1, field: 2, isIPv6: isIPv6),
      ]
    }

    var isEcho: Bool { proto == 1 || proto == 58 }
    var header: Int { 14 + (isIPv6 ? 40 : 20) }

    /// A frame with this message, its checksum field included.
    func frame(_ message: [UInt8], _ source: [UInt8], _ destination: [UInt8]) -> [UInt8] {
      guard isIPv6 else {
        var frame = IPv4Frame()
        (frame.proto, frame.payload, frame.source, frame.destination) = (proto, message, source, destination)
        return frame.bytes
      }
      var frame = IPv6Frame()
      (frame.proto, frame.payload, frame.source, frame.destination) = (proto, message, source, destination)
      return frame.bytes
    }

    func checksum(_ frame: [UInt8]) -> Int { number(frame[(header + field)..<(header + field + 2)]) }

    /// What the receiver makes of it: the sum of everything.
    func sum(_ frame: [UInt8]) -> UInt16 {
      let message = frame[header...]
      let addresses = frame[(14 + (isIPv6 ? 8 : 12))..<header]
      let pseudoHeader = proto == 1 ? [] : addresses + bigEndian(message.count, 4) + [0, 0, 0, proto]
      return ~referenceChecksum(pseudoHeader + message)
    }

    func isRight(_ frame: [UInt8]) -> Bool {
      if proto == 136, checksum(frame) == 0 { return false }
      return sum(frame) == 0xFFFF
    }
  }

  /// One change, with the words that it takes away and puts there.
  struct Change: Sendable {
    let field: String
    let new: [UInt8]

    func apply(_ bytes: inout [UInt8], isIPv6: Bool) throws {
      try withMutableSpan(&bytes) { span throws(PacketFormatError) in
        var frame = try MutableInternetFrame(&span)
        let word = UInt16(number(new[..<2]))
        switch field {
        case "source port": try frame.setSourcePort(word)
        case "destination port": try frame.setDestinationPort(word)
        case "identifier": try frame.setEchoIdentifier(word)
        case "hop limit": _ = frame.decrementHopLimit()
        default:
          let isSource = field == "source"
          if isIPv6, let address = IPv6Address(decoding: new.raw) {
            try isSource ? frame.setSource(address) : frame.setDestination(address)
          } else if let address = IPv4Address(decoding: new.raw) {
            try isSource ? frame.setSource(address) : frame.setDestination(address)
          }
        }
      }
    }
  }

  static func corner(_ count: Int, _ random: inout SeededRandom) -> [UInt8] {
    switch random.below(4) {
    case 0: [UInt8](repeating: 0, count: count)
    case 1: [UInt8](repeating: 0xFF, count: count)
    default: random.bytes(count)
    }
  }

  static func expectSame(_ kind: Kind, _ before: [UInt8], _ change: Change) throws {
    var after = before
    try change.apply(&after, isIPv6: kind.isIPv6)
    let isRight = (kind.isRight(before), kind.isRight(after))
    let isAbsent = kind.proto == 17 && kind.checksum(before) == 0
    guard isAbsent ? kind.checksum(after) == 0 : isRight.0 == isRight.1 else {
      Issue.record("\(kind.testDescription), \(change): right \(isRight) of \(before), \(after)")
      return
    }
    // Where zero says something of its own it neither comes nor goes.
    if [17, 136].contains(kind.proto) { #expect((kind.checksum(before) == 0) == (kind.checksum(after) == 0)) }
    // Nothing but zeros, and UDP-Lite's zero, are wrong in a way that is no difference of sums.
    let isSpecial = kind.sum(before) == 0 || ([17, 136].contains(kind.proto) && kind.checksum(before) == 0)
    if !isSpecial {
      #expect(Int(kind.sum(before)) % 0xFFFF == Int(kind.sum(after)) % 0xFFFF, "\(kind.testDescription), \(change)")
    }
    if !kind.isIPv6 { #expect(referenceChecksum(after[14..<34]) == 0) }
  }

  @Test("In corner cases and in others, for every field of every transport", arguments: Kind.all)
  func everyChange(_ kind: Kind) throws {
    var random = SeededRandom(seed: UInt64(kind.proto) << 1 | (kind.isIPv6 ? 1 : 0))
    let width = kind.isIPv6 ? 16 : 4
    for round in 0..<600 {
      let fields =
        ["source", "destination", "hop limit"]
        + (kind.isEcho ? ["identifier"] : [6, 17].contains(kind.proto) ? ["source port", "destination port"] : [])
      let field = fields[round % fields.count]
      let isAddress = ["source", "destination"].contains(field)
      let (source, destination) = (Self.corner(width, &random), Self.corner(width, &random))
      var message = Self.corner(20, &random) + Self.corner(2 * random.below(8), &random)
      if kind.isEcho { message[0] = kind.isIPv6 ? 128 : [8, 0][random.below(2)] }
      if kind.proto == 17 { message.replaceSubrange(4..<6, with: bigEndian(message.count, 2)) }
      let change = Change(field: field, new: Self.corner(isAddress ? width : 2, &random))
      let place = ["source port": 0, "destination port": 2, "identifier": 4][field]
      let old =
        field == "source" ? source : field == "destination" ? destination : place.map { Array(message[$0..<($0 + 2)]) }
      message.replaceSubrange(kind.field..<(kind.field + 2), with: [0, 0])
      let right = Int(~kind.sum(kind.frame(message, source, destination)))
      // The two zeros, the right one, its neighbours, and those that come out as a zero.
      var checksums = [0, 0xFFFF, right, right ^ 1, right ^ 0xFFFF, random.below(0x10000)]
      if let old {
        let difference = Int(~referenceChecksum(change.new)) - Int(~referenceChecksum(old))
        let vanishing = (difference % 0xFFFF + 0xFFFF) % 0xFFFF
        checksums += [vanishing, vanishing + 1, (vanishing + 0xFFFE) % 0xFFFF]
        if vanishing == 0 { checksums.append(0xFFFF) }
      }
      for checksum in checksums {
        message.replaceSubrange(kind.field..<(kind.field + 2), with: bigEndian(checksum, 2))
        try Self.expectSame(kind, kind.frame(message, source, destination), change)
      }
    }
  }

  @Test(
    "Checksums of an echo from 0 to 65535, all that come out as a zero, and messages of nothing but zeros",
    arguments: [false, true])
  func wholeRange(isReply: Bool) throws {
    let kind = Kind(testDescription: "ICMP", proto: 1, field: 2)
    for (old, new, rest) in [(0, 0x1234, 0), (0x1234, 0, 0), (0xFFFF, 0, 0), (0, 0xFFFF, 0), (0x00FF, 0x4321, 7)] {
      let data = bigEndian(rest, 6)
      for checksum in 0...0xFFFF {
        let message = [isReply ? 0 : 8, 0] + bigEndian(checksum, 2) + bigEndian(old, 2) + data
        let frame = kind.frame(message, There.ipBytes, Here.ipBytes)
        // All of them would take long where nothing is optimised; those that come out as zero are what matters.
        let updated = (checksum + old - new + 2 * 0xFFFF) % 0xFFFF
        guard updated < 2 || checksum % 64 == 0 || checksum == 0xFFFF else { continue }
        try Self.expectSame(kind, frame, Change(field: "identifier", new: bigEndian(new, 2)))
      }
    }
  }

  @Test("An identifier that is the same changes nothing, zeros with either checksum included")
  func sameIdentifier() throws {
    for checksum in [0, 0xFFFF] {
      let message = [0, 0] + bigEndian(checksum, 2) + [UInt8](repeating: 0, count: 8)
      let frame = Kind(testDescription: "ICMP", proto: 1, field: 2).frame(message, There.ipBytes, Here.ipBytes)
      var after = frame
      try Change(field: "identifier", new: [0, 0]).apply(&after, isIPv6: false)
      #expect(after == frame)
    }
  }
}
