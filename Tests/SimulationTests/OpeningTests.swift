import CTestSupport
import Glibc
import NetdevTesting
import Synchronization
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
      // What has its number now is no file of the program's.
      kept.taken = test_take_number()
    }
    close(kept.taken)
    #expect(closed.findings.isEmpty, "\(closed)")
    let strange = await Simulation(seed: 1).observe { _ in StrangerThread { kept.open(opening.index) }.join() }
    unsafe test_opening_close(&kept.opened)
    #expect(strange.findings.isEmpty, "\(strange)")
  }

  @Test func `a file that takes the place of one from before the world is none of its`() async {
    let before = dup(0)
    defer { close(before) }
    let report = await Simulation(seed: 1).observe { _ in #expect(dup2(0, before) == before) }
    #expect(report.findings.isEmpty, "\(report)")
  }

  @Test func `what closes where there is nothing answers as the C library does, and a range is closed`() async {
    #expect(test_close_folder_of_nothing() == EINVAL)
    #expect(test_close_stream_of_memory() == 0)
    let taken = Mutex<CInt>(-1)
    let report = await Simulation(seed: 1).observe { _ in
      #expect(test_close_by_range() == 0)
      taken.withLock { $0 = test_take_number() }
    }
    close(taken.withLock { $0 })
    #expect(report.findings.isEmpty, "\(report)")
  }

  @safe private final class Kept: @unchecked Sendable {
    // Proof: one world after the other, and a thread that is joined.
    var opened = unsafe test_opened()
    var refusal: CInt = 0
    var taken: CInt = -1

    func open(_ index: Int) { unsafe refusal = test_opening_open(index, &opened) }
  }
}
