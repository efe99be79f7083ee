/// The Internet checksum (RFC 1071): the one's complement of the one's complement sum of 16-bit words.
///
/// The value is a sum in progress. Words are added eight bytes at a time into 64 bits with the carry brought around: 2^64 and
/// 2^16 are both congruent to 1 modulo 65535, so nothing is lost, and the fold to 16 bits happens once, at the end. The
/// order of bytes is of no consequence to the sum either (RFC 1071 §2 (B)): a run is summed in the machine's order and the
/// result swapped once.
///
///     var checksum = InternetChecksum()
///     checksum.add(header)                // a RawSpan; runs of odd length may follow each other
///     let field = checksum.value          // 0xFFFF − sum, ready for the header
@frozen
public struct InternetChecksum: Sendable {
  /// The one's complement sum so far, unfolded. It is zero only if everything added was zero.
  @usableFromInline var sum: UInt64
  /// Whether an odd number of bytes was added, so that the next run starts in the lower half of a word.
  @usableFromInline var isOdd: Bool

  /// A sum of nothing.
  @inlinable
  public init() {
    sum = 0
    isOdd = false
  }

  /// The sum folded to 16 bits. Over data that includes its own right checksum it is `0xFFFF`.
  @inlinable public var folded: UInt16 {
    // Adding a number to itself with its halves exchanged leaves the end-around sum of the halves in the upper half.
    let halves = sum &+ (sum << 32 | sum >> 32)
    let word = UInt32(truncatingIfNeeded: halves >> 32)
    return UInt16(truncatingIfNeeded: (word &+ (word << 16 | word >> 16)) >> 16)
  }

  /// The checksum to put into a header whose checksum field was zero, or left out, in the sum.
  @inlinable public var value: UInt16 { ~folded }

  /// Whether the sum is that of data with a right checksum among it.
  @inlinable public var isValid: Bool { folded == 0xFFFF }

  /// Adds one 16-bit word, given as a number. Where it stands in the data does not matter, as long as it is at an even
  /// offset: words may be added in any order, before and after runs of bytes.
  @inlinable @inline(__always)
  public mutating func add(_ word: UInt16) {
    sum = InternetChecksum.endAround(sum, UInt64(word))
  }

  /// Adds two 16-bit words, the first in the upper half.
  @inlinable @inline(__always)
  public mutating func add(_ words: UInt32) {
    sum = InternetChecksum.endAround(sum, UInt64(words))
  }

  /// Adds four 16-bit words, the first in the uppermost quarter.
  @inlinable @inline(__always)
  public mutating func add(_ words: UInt64) {
    sum = InternetChecksum.endAround(sum, words)
  }

  /// Adds a run of bytes. A run of odd length counts as if padded with a zero byte at the end of everything (RFC 1071 §1);
  /// a further run goes on in the middle of that word, so a packet in several pieces sums as if it were in one.
  @inlinable @inline(__always)
  public mutating func add(_ bytes: RawSpan) {
    let run = UInt64(bigEndian: InternetChecksum.nativeSum(bytes))
    // A run that starts at an odd byte has the halves of its words exchanged: a rotation by 8 multiplies by 256, which
    // modulo 65535 is that exchange.
    sum = InternetChecksum.endAround(sum, isOdd ? (run << 8 | run >> 56) : run)
    if bytes.byteCount & 1 != 0 { isOdd.toggle() }
  }

  /// The end-around sum of a run in the machine's order of bytes.
  @inlinable
  static func nativeSum(_ bytes: RawSpan) -> UInt64 {
    let count = bytes.byteCount
    guard count >= 8 else { return nativeSumOfFew(bytes) }
    var offset = 0
    // Two sums side by side, so that one addition need not wait for the carry of the one before.
    var first: UInt64 = 0
    var second: UInt64 = 0
    while count &- offset >= 32 {
      // The condition of the loop says that 32 bytes are there: the four loads need no check of their own.
      unsafe first = endAround(first, bytes.loadNativeUInt64(atUnchecked: offset))
      unsafe second = endAround(second, bytes.loadNativeUInt64(atUnchecked: offset &+ 8))
      unsafe first = endAround(first, bytes.loadNativeUInt64(atUnchecked: offset &+ 16))
      unsafe second = endAround(second, bytes.loadNativeUInt64(atUnchecked: offset &+ 24))
      offset &+= 32
    }
    while count &- offset >= 8 {
      // As above, with 8 bytes.
      unsafe first = endAround(first, bytes.loadNativeUInt64(atUnchecked: offset))
      offset &+= 8
    }
    if count > offset {
      // Up to seven bytes are left: the last eight bytes, without those at their front that are summed already.
      let last = UInt64(littleEndian: bytes.loadNativeUInt64(inside: count &- 8))
      second = endAround(second, (last &>> UInt64(truncatingIfNeeded: 8 &* (8 &- (count &- offset)))).littleEndian)
    }
    return endAround(first, second)
  }

  /// The same for fewer than eight bytes: they fill the upper end of a big-endian word, zeros behind them.
  @inlinable
  static func nativeSumOfFew(_ bytes: RawSpan) -> UInt64 {
    var sum: UInt64 = 0
    var offset = 0
    while offset < bytes.byteCount {
      sum = sum << 8 | UInt64(bytes.loadUInt8(inside: offset))
      offset &+= 1
    }
    return (sum << UInt64(truncatingIfNeeded: 8 &* (8 &- offset))).bigEndian
  }

  @inlinable @inline(__always)
  static func endAround(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let (total, carry) = left.addingReportingOverflow(right)
    return total &+ (carry ? 1 : 0)
  }
}

extension InternetChecksum {
  /// The checksum after one 16-bit word of the data changed, without reading the rest (RFC 1624 §3, equation 3:
  /// HC' = ~(~HC + ~m + m')).
  ///
  /// The data must not have become all zeros, which no header does: one's complement has two zeros, and the update ends at
  /// the other one.
  @inlinable
  public static func updated(_ checksum: UInt16, replacing old: UInt16, with new: UInt16) -> UInt16 {
    var sum = InternetChecksum()
    sum.add(~checksum)
    sum.add(~old)
    sum.add(new)
    return sum.value
  }

  /// The checksum after two neighbouring 16-bit words of the data changed, for example an address.
  @inlinable
  public static func updated(_ checksum: UInt16, replacing old: UInt32, with new: UInt32) -> UInt16 {
    var sum = InternetChecksum()
    sum.add(~checksum)
    sum.add(~old)
    sum.add(new)
    return sum.value
  }

  /// The checksum after four neighbouring 16-bit words of the data changed, for example half an IPv6 address.
  @inlinable
  public static func updated(_ checksum: UInt16, replacing old: UInt64, with new: UInt64) -> UInt16 {
    var sum = InternetChecksum()
    sum.add(~checksum)
    sum.add(~old)
    sum.add(new)
    return sum.value
  }
}
