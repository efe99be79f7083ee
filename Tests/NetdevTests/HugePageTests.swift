import CTestSupport
import Foundation
import Glibc
import Netdev
import TestSupport
import Testing

/// Huge pages that are free, and that a control group nevertheless forbids (a limit of 0 in hugetlb): the file is made and mapped,
/// and the first access would be SIGBUS. Ordinary pages are the second choice.
@Suite(.serialized, .timeLimit(.minutes(2))) struct HugePageTests {
  private static let setting = "/proc/sys/vm/nr_hugepages"

  private static func reserved() -> Int? {
    guard let text = try? String(contentsOfFile: setting, encoding: .utf8) else { return nil }
    return Int(text.trimmingCharacters(in: .whitespacesAndNewlines))
  }

  private static func reserve(_ count: Int) {
    try? "\(count)".write(toFile: setting, atomically: false, encoding: .utf8)
  }

  @Test(.enabled(if: geteuid() == 0 && reserved() != nil, "needs root, to reserve huge pages"))
  func `huge pages that are free and forbidden give way to ordinary ones`() throws {
    let before = Self.reserved() ?? 0
    Self.reserve(before + 4)
    defer { Self.reserve(before) }
    let settings = PacketPool.Configuration(slots: 64)
    // Without the refusal they are had, where the system has as many in one piece.
    guard try PacketPool(settings).usesHugePages else { return }
    // As the kernel says it: the page cannot be had.
    var made: PacketPool?
    let result = onThreadRefusing(test_call_populate_huge, EFAULT) { made = try? PacketPool(settings) }
    #expect(result == 0)
    let pool = try #require(made)
    #expect(!pool.usesHugePages)
    var packets: [Packet] = []
    while pool.available > 0 { packets.append(try Packet(copying: numbered(packets.count), in: pool)) }
    #expect(packets.count == 64)
  }
}
