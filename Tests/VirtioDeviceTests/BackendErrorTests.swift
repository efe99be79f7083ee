import Glibc
import Testing

@testable import VirtioDevice

/// What an error of a back-end tells a person to do.
@Suite struct BackendErrorTests {
  @Test(arguments: [(EMFILE, "ulimit -n"), (ENFILE, "/proc/sys/fs/file-max"), (EINVAL, "something else")])
  func `a want of descriptors has its own remedy`(_ errno: CInt, _ remedy: String) {
    #expect(BackendError.advice(for: errno, otherwise: "something else").contains(remedy))
    let opening = TapQueue.refusal(errno: errno, opening: true, name: "tap0", index: 0, count: 1)
    #expect(opening.advice.contains("ulimit -n") == (errno == EMFILE))
  }

  @Test func `a busy TAP interface may be a device's of this process`() {
    let error = TapQueue.refusal(errno: EBUSY, opening: false, name: "tap0", index: 0, count: 1)
    #expect(error.code == .inUse)
    #expect(error.advice.contains("a device of this one that is not closed yet"))
  }
}
