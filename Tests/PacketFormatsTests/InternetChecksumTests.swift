import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("Internet checksum (RFC 1071, RFC 1624)")
struct InternetChecksumTests {
  private func checksum(_ bytes: [UInt8]) -> InternetChecksum {
    var sum = InternetChecksum()
    sum.add(bytes.raw)
    return sum
  }

  @Test("RFC 1071 §3: the numerical example")
  func example() {
    let sum = checksum(hex("0001 f203 f4f5 f6f7"))
    #expect(sum.folded == 0xDDF2)
    #expect(sum.value == 0x220D)
  }

  @Test("A sum of nothing is zero, and its checksum all ones")
  func nothing() {
    #expect(InternetChecksum().folded == 0 && InternetChecksum().value == 0xFFFF)
    #expect(checksum([]).folded == 0)
  }

  @Test("RFC 1071 §1: the eight-byte sum is the word-by-word sum, for every length and alignment")
  func allLengths() {
    var random = SeededRandom(seed: 1071)
    let bytes = random.bytes(200)
    for start in 0..<9 {
      for end in start...200 {
        var sum = InternetChecksum()
        sum.add(bytes.raw.extracting(start..<end))
        #expect(sum.value == referenceChecksum(bytes[start..<end]), "\(start)..<\(end)")
      }
    }
  }

  @Test("Carries come around: bytes of all ones in any number sum to all ones")
  func carries() {
    for count in stride(from: 2, through: 2000, by: 2) {
      #expect(checksum([UInt8](repeating: 0xFF, count: count)).folded == 0xFFFF)
    }
  }

  @Test("A run of odd length continues in the middle of a word")
  func oddRuns() {
    var random = SeededRandom(seed: 3)
    let bytes = random.bytes(97)
    for _ in 0..<500 {
      let cuts = [0, random.below(98), random.below(98), random.below(98), 97].sorted()
      var sum = InternetChecksum()
      for index in 1..<cuts.count { sum.add(bytes.raw.extracting(cuts[index - 1]..<cuts[index])) }
      #expect(sum.value == referenceChecksum(bytes), "\(cuts)")
    }
  }

  @Test("Numbers count as the words they are on the wire, wherever they are added")
  func numbers() {
    var sum = InternetChecksum()
    sum.add(0x0001_F203_F4F5_F6F7 as UInt64)
    #expect(sum.folded == 0xDDF2)
    sum = InternetChecksum()
    sum.add(0x0001_F203 as UInt32)
    sum.add([0xF4].raw)
    sum.add(0xF6F7 as UInt16)
    sum.add([0xF5].raw)
    #expect(sum.folded == 0xDDF2)
  }

  @Test("RFC 1071 §1: over data with its right checksum the sum is all ones, after any change of a bit it is not")
  func validity() {
    var random = SeededRandom(seed: 5)
    var bytes = random.bytes(64)
    bytes.replaceSubrange(10..<12, with: [0, 0])
    bytes.replaceSubrange(10..<12, with: bigEndian(referenceChecksum(bytes), 2))
    #expect(checksum(bytes).isValid)
    for bit in 0..<(64 * 8) {
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(!checksum(bytes).isValid)
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    }
  }

  @Test("RFC 1624 §4: the example at which the older equation fails")
  func updateExample() {
    #expect(InternetChecksum.updated(0xDD2F, replacing: 0x5555 as UInt16, with: 0x3285) == 0x0000)
  }

  @Test("RFC 1624 §3: an update equals a fresh computation")
  func update() {
    var random = SeededRandom(seed: 1624)
    for _ in 0..<2000 {
      var bytes = random.bytes(20)
      bytes[0] = 0x45
      let old = referenceChecksum(bytes)
      let word = 2 * (1 + random.below(8))
      let before = number(bytes[word..<(word + 2)])
      let beforePair = number(bytes[word..<(word + 4)])
      let new = random.bytes(4)
      bytes.replaceSubrange(word..<(word + 2), with: new.prefix(2))
      let updated = InternetChecksum.updated(
        old, replacing: UInt16(before), with: UInt16(number(new[0..<2])))
      #expect(updated == referenceChecksum(bytes))
      bytes.replaceSubrange(word..<(word + 4), with: new)
      let updatedPair = InternetChecksum.updated(
        old, replacing: UInt32(beforePair), with: UInt32(number(new[0..<4])))
      #expect(updatedPair == referenceChecksum(bytes))
    }
  }
}
