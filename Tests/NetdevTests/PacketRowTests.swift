@testable import Netdev
import TestSupport
import Testing

/// Rows of packets, in which code outside a loop leaves what the loop is to send.
@Suite(.timeLimit(.minutes(1))) struct PacketRowTests {
  private static func pool() throws -> PacketPool { try PacketPool(.init(slots: 256, hugePages: false)) }

  private static func append(_ numbers: Range<Int>, to row: inout PacketRow, of pool: PacketPool) throws {
    for number in numbers { row.append(try Packet(copying: numbered(number), in: pool)) }
  }

  private static func pop(_ count: Int, of row: inout PacketRow) -> [Int] {
    (0..<count).compactMap { _ in row.popFirst()?.number }
  }

  private static func check(_ row: borrowing PacketRow, _ count: Int) {
    let (isEmpty, found) = (row.isEmpty, row.count)
    #expect(found == count && isEmpty == (count == 0))
  }

  @Test func `what was left first comes first, however the row grows and moves`() throws {
    let pool = try Self.pool()
    var row = PacketRow(capacity: 4)
    #expect(Self.pop(1, of: &row) == [])
    try Self.append(0..<4, to: &row, of: pool)
    #expect(Self.pop(3, of: &row) == [0, 1, 2])
    // Room in front of the one that is left, then none at all.
    try Self.append(4..<7, to: &row, of: pool)
    Self.check(row, 4)
    try Self.append(7..<40, to: &row, of: pool)
    #expect(Self.pop(100, of: &row) == Array(3..<40))
    Self.check(row, 0)
    #expect(pool.free == 256)
  }

  @Test func `another row's packets follow, and that one is empty`() throws {
    let pool = try Self.pool()
    var row = PacketRow(capacity: 2)
    var other = PacketRow(capacity: 8)
    try Self.append(0..<5, to: &other, of: pool)
    row.take(&other)
    Self.check(other, 0)
    Self.check(row, 5)
    try Self.append(5..<9, to: &other, of: pool)
    row.take(&other)
    Self.check(other, 0)
    #expect(Self.pop(9, of: &row) == Array(0..<9))
  }

  @Test func `packets that are left in a row go with it, or when all are removed`() throws {
    let pool = try Self.pool()
    do {
      var row = PacketRow(capacity: 2)
      try Self.append(0..<10, to: &row, of: pool)
      _ = row.popFirst()
      #expect(pool.free == 247)
      row.removeAll()
      Self.check(row, 0)
      #expect(pool.free == 256)
      try Self.append(0..<3, to: &row, of: pool)
      #expect(pool.free == 253)
    }
    #expect(pool.free == 256)
  }
}
