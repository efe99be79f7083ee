package import Netdev
internal import Synchronization

/// Bytes that say which packet they are.
package func numbered(_ number: Int, count: Int = 64) -> [UInt8] {
  (0..<count).map { $0 < 8 ? UInt8(truncatingIfNeeded: number >> ($0 * 8)) : UInt8(truncatingIfNeeded: number &+ $0) }
}

/// How often each number was seen.
package final class Tally: Sendable {
  private let counts: Mutex<[Int]>
  package init(_ size: Int) { counts = Mutex([Int](repeating: 0, count: size)) }
  package func add(_ number: Int) { counts.withLock { $0[number] += 1 } }
  package var total: Int { counts.withLock { $0.reduce(0, +) } }
  package var allSeen: Bool { counts.withLock { $0.allSatisfy { $0 >= 1 } } }
  package var allOnce: Bool { counts.withLock { $0.allSatisfy { $0 == 1 } } }
}

extension Packet {
  /// The number that `numbered` put in.
  package var number: Int {
    withBytes { bytes in (0..<8).reduce(0) { $0 | Int(bytes.unsafeLoadUnchecked($1)) << ($1 * 8) } }
  }

  /// The packet's bytes as an array.
  package var array: [UInt8] {
    withBytes { bytes in (0..<bytes.byteCount).map { bytes.unsafeLoadUnchecked($0) } }
  }
}

extension RawSpan {
  package func unsafeLoadUnchecked(_ offset: Int) -> UInt8 { unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self) }
}
