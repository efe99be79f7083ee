import PacketFormats
import TestSupport
import Testing

@testable import VirtioDevice

private let second: UInt64 = 1_000_000_000

/// A table behind a reference: macros cannot call what mutates a value.
private final class Table {
  private var table: SenderTable
  init(_ capacity: Int) { table = SenderTable(capacity: capacity, expiry: 60 * second, minimumIdle: second) }
  var count: Int { table.count }
  func number(of key: SenderTable.Key, now: UInt64) -> Int? { table.number(of: key, now: now) }
  func sender(_ number: Int, port: UInt16, now: UInt64) -> SenderTable.Key? {
    table.sender(number, port: port, now: now)
  }
}

@Suite struct SenderTableTests {

  private func key(_ port: Int) -> SenderTable.Key {
    SenderTable.Key(address: IPv6Address(high: 0, low: 0xFFFF_7F00_0001), port: UInt16(port))
  }

  @Test func `a sender keeps its number, and different senders have different numbers`() {
    let table = Table(4096)
    var numbers: [Int?] = []
    for port in 0..<4096 { numbers.append(table.number(of: key(port), now: 0)) }
    #expect(Set(numbers).count == 4096)
    for port in (0..<4096).reversed() { #expect(table.number(of: key(port), now: 1) == numbers[port]) }
    #expect(table.count == 4096)
  }

  @Test func `a number leads back to its sender only with the right port`() throws {
    let table = Table(16)
    let number = try #require(table.number(of: key(7), now: 0))
    #expect(table.sender(number, port: 7, now: 1) == key(7))
    #expect(table.sender(number, port: 8, now: 1) == nil)
    #expect(table.sender(number + 1, port: 7, now: 1) == nil)
    #expect(table.sender(-1, port: 7, now: 1) == nil)
    #expect(table.sender(Int.max, port: 7, now: 1) == nil)
  }

  @Test func `a sender that was silent for the expiry time is unknown until it sends again`() throws {
    let table = Table(16)
    let number = try #require(table.number(of: key(7), now: 0))
    #expect(table.sender(number, port: 7, now: 60 * second) == key(7))
    #expect(table.sender(number, port: 7, now: 121 * second) == nil)
    #expect(table.number(of: key(7), now: 122 * second) == number)
    #expect(table.sender(number, port: 7, now: 123 * second) == key(7))
  }

  @Test func `a full table gives the place of the sender idle longest, and only after a second of silence`() throws {
    let table = Table(4)
    for port in 0..<4 { _ = table.number(of: key(port), now: UInt64(port)) }
    #expect(table.number(of: key(100), now: second) == nil)
    // Sender 0 speaks, so that 1 is now the one idle longest.
    let zero = try #require(table.number(of: key(0), now: second))
    let one = try #require(table.number(of: key(100), now: second + 2))
    #expect(one != zero)
    #expect(table.sender(one, port: 1, now: second + 3) == nil)
    #expect(table.sender(one, port: 100, now: second + 3) == key(100))
    #expect(table.sender(zero, port: 0, now: second + 3) == key(0))
    #expect(table.count == 4)
  }

  @Test func `an answer to a sender counts as use`() throws {
    let table = Table(2)
    let first = try #require(table.number(of: key(1), now: 0))
    let other = try #require(table.number(of: key(2), now: 1))
    #expect(table.sender(first, port: 1, now: 5 * second) == key(1))
    #expect(table.number(of: key(3), now: 5 * second) == other)
  }

  @Test func `the table agrees with a dictionary through a long random history of full tables`() {
    let table = Table(64)
    var generator = SystemRandomNumberGenerator()
    var known: [SenderTable.Key: Int] = [:]
    var now: UInt64 = 0
    for _ in 0..<50_000 {
      now += UInt64.random(in: 0...(second / 16), using: &generator)
      let key = key(Int.random(in: 0..<200, using: &generator))
      guard let number = table.number(of: key, now: now) else { continue }
      if let before = known[key] {
        #expect(before == number)
      } else {
        // A place that changed hands: whoever had it is unknown now.
        for (other, place) in known where place == number { known[other] = nil }
        known[key] = number
      }
      #expect(known.count <= 64)
    }
  }
}
