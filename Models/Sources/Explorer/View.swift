internal import CCoroutine

/// What somebody knows of the memory: of each location, the oldest message that it may still read, and of each thread, how much of
/// what that did comes before what is done now.
struct View: Hashable {
  static let locations = 56
  static let threads = 8

  private var lanes = SIMD64<UInt8>()

  /// Of a location: a position in its order of modification.
  subscript(location: Int) -> Int {
    get { Int(lanes[location]) }
    set { lanes[location] = UInt8(newValue) }
  }

  /// Of a thread: how often it had told others of itself.
  func clock(_ thread: Int) -> UInt8 { lanes[Self.locations + thread] }

  mutating func tick(_ thread: Int) { lanes[Self.locations + thread] += 1 }

  mutating func join(_ other: View) {
    withUnsafeMutableBytes(of: &lanes) { mine in
      withUnsafeBytes(of: other.lanes) { view_join(mine.baseAddress, $0.baseAddress) }
    }
  }

  /// As `join`, of locations alone: the order of fences tells what may be read, and is no happens-before.
  mutating func joinLocations(_ other: View) { join(other.locationsOnly) }

  var locationsOnly: View {
    var result = self
    for thread in 0..<Self.threads { result.lanes[Self.locations + thread] = 0 }
    return result
  }

  /// A message has come in at `position` of `location`: those behind it have moved up.
  mutating func shift(_ location: Int, from position: Int) {
    if self[location] >= position { self[location] += 1 }
  }

  /// Its lanes by eights.
  var words: SIMD8<UInt64> { unsafeBitCast(lanes, to: SIMD8<UInt64>.self) }
}

/// A hash of what is added, in order. Two states of a model are taken for one when all 64 bits agree.
struct StateHash {
  private(set) var value: UInt64 = 0x9E37_79B9_7F4A_7C15

  mutating func add(_ word: UInt64) {
    let product = (value ^ word).multipliedFullWidth(by: 0xA076_1D64_78BD_642F)
    value = product.high ^ product.low ^ 0xE703_7ED1_A0B4_28DB &+ (word &<< 17 | word &>> 47)
  }

  mutating func add(_ view: View) {
    let words = view.words
    for lane in 0..<8 { add(words[lane]) }
  }
}
