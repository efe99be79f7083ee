import CTestSupport
import Glibc
import NetdevTesting
import Testing

/// Descriptors that a program opens in a world, by each function of the C library that opens some: left open, closed, and opened on
/// another thread.
@Suite struct OpeningTests {
  struct Opening: Sendable, CustomTestStringConvertible {
    let index: Int
    let testDescription: String
  }

  private static let openings: [Opening] = {
    var openings: [Opening] = []
    while let name = unsafe test_opening_name(openings.count) {
      openings.append(Opening(index: openings.count, testDescription: unsafe String(cString: name)))
    }
    return openings
  }()

  @Test func `all of them are here`() { #expect(Self.openings.count > 50) }

  @Test(arguments: openings) private func `what is left open is found, and nothing else`(_ opening: Opening) async {
    let kept = Kept()
    let left = await Simulation(seed: 1).observe { _ in kept.open(opening.index) }
    unsafe test_opening_close(&kept.opened)
    // Not everywhere a process may do so.
    if kept.refusal != 0 {
      #expect([-EPERM, -ENOSYS, -EACCES, -EINVAL, -ENODEV, -EROFS].contains(kept.refusal), "\(kept.refusal)")
      return
    }
    let opened = unsafe kept.opened
    let count = unsafe Int(opened.count) + (opened.file == nil ? 0 : 1) + (opened.folder == nil ? 0 : 1)
    #expect(left.findings.first?.hasPrefix("\(count) descriptors are left open: ") == true, "\(left)")
    let closed = await Simulation(seed: 1).observe { _ in
      kept.open(opening.index)
      unsafe test_opening_close(&kept.opened)
    }
    #expect(closed.findings.isEmpty, "\(closed)")
    let strange = await Simulation(seed: 1).observe { _ in StrangerThread { kept.open(opening.index) }.join() }
    unsafe test_opening_close(&kept.opened)
    #expect(strange.findings.isEmpty, "\(strange)")
  }

  @safe private final class Kept: @unchecked Sendable {
    // Proof: one world after the other, and a thread that is joined.
    var opened = unsafe test_opened()
    var refusal: CInt = 0

    func open(_ index: Int) { unsafe refusal = test_opening_open(index, &opened) }
  }
}
