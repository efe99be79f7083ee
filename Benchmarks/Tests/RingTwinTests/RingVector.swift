import Testing

/// One thing that is done to a pair of rings, driver and device side of the same memory.
enum RingStep: Equatable, Sendable {
  case add(address: UInt64, length: UInt32, writable: Bool, token: UInt64)
  case addChain(readable: [UInt32], writable: [UInt32], token: UInt64)
  case publish
  case needsKick
  case pop(max: Int)
  case use(head: UInt16, written: UInt32)
  case publishUsed
  case needsCall
  case reap(max: Int)
  case armInterrupt(after: Int)
  case armKick
  /// A peer that lies: two bytes in the ring's memory.
  case poke(offset: Int, UInt16)
}

/// What came of a step.
enum RingOutcome: Equatable, Sendable {
  case done
  case answer(Bool)
  case chains([Chain])
  case used([Used])
  /// The name of the rule that was broken.
  case broken(String)

  struct Chain: Equatable, Sendable {
    var head: UInt16
    /// Lengths of what is read, then of what is written.
    var readable: [Int]
    var writable: [Int]
  }

  struct Used: Equatable, Sendable {
    var token: UInt64
    var written: UInt32
  }
}

/// A ring that vectors run on: Swift's, or its twin in C.
protocol RingUnderTest: AnyObject {
  func perform(_ step: RingStep) -> RingOutcome
  /// The ring's memory: descriptors, available ring, used ring, as `SplitRingLayout` lays them.
  var bytes: [UInt8] { get }
}

/// Where the buffers of vectors lie.
let vectorBase: UInt64 = 0x1000
let vectorBytes = 0x10000

/// Steps with what is expected of them, and of the memory in the end.
struct RingVector: Sendable, CustomTestStringConvertible {
  let name: String
  let size: Int
  var start: UInt16 = 0
  var eventIndex = true
  let steps: [(RingStep, RingOutcome)]
  /// The ring's memory afterwards, in hexadecimal; runs of zeros of any length are written `..`.
  var memory: String?

  var testDescription: String { name }
}

/// Bytes in hexadecimal with runs of eight zero bytes or more written `..`.
func abridged(_ bytes: [UInt8]) -> String {
  var text = ""
  var index = 0
  while index < bytes.count {
    var end = index
    while end < bytes.count, bytes[end] == 0 { end += 1 }
    if end - index >= 8 {
      text += ".."
      index = end
    } else {
      let digits = String(bytes[index], radix: 16)
      text += digits.count == 1 ? "0" + digits : digits
      index += 1
    }
  }
  return text
}
