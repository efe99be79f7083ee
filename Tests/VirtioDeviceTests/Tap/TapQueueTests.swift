import CTestSupport
import Glibc
import TestSupport
import Testing

@testable import VirtioDevice

/// What opening TAP queues refused, or nil.
private func refusal(_ name: String, _ count: Int) -> BackendError? {
  do throws(BackendError) {
    _ = try TapQueue.open(name: name, count: count)
    return nil
  } catch {
    return error
  }
}

/// All tests that open TAP interfaces, one after the other: some count the descriptors of the process.
@Suite(
  .serialized, .enabled(if: NetworkNamespace.isAvailable, "\(NetworkNamespace.reason)"), .timeLimit(.minutes(1)))
enum TapBackendTests {}

extension TapBackendTests {
  @Suite struct Queues {
    @Test func `queues are opened for the name that was asked for, and close with the last holder`() throws {
      let before = settledDescriptors(of: "/dev/net/tun")
      try NetworkNamespace.run {
        var opened: [TapQueue]? = try TapQueue.open(name: "tap0", count: 4)
        #expect(opened?.map { $0.interface } == Array(repeating: "tap0", count: 4))
        #expect(openDescriptors(of: "/dev/net/tun") == before + 4)
        let kept = opened?[2]
        opened = nil
        #expect(openDescriptors(of: "/dev/net/tun") == before + 1)
        #expect(interfaceExists("tap0"))
        withExtendedLifetime(kept) {}
      }
      #expect(openDescriptors(of: "/dev/net/tun") == before)
    }

    @Test func `an empty name lets the kernel choose, and all queues are of the interface that it chose`() throws {
      let names = try NetworkNamespace.run { try TapQueue.open(name: "", count: 3).map { $0.interface } }
      #expect(Set(names).count == 1)
      #expect(names.first?.hasPrefix("tap") == true)
    }

    @Test func `an interface of ours goes with its queues, one that somebody made stays`() throws {
      try NetworkNamespace.run {
        _ = try TapQueue.open(name: "ours", count: 2)
        #expect(!interfaceExists("ours"))
        #expect(makePersistentTap("theirs", multiQueue: true) == 0)
        _ = try TapQueue.open(name: "theirs", count: 2)
        #expect(interfaceExists("theirs"))
      }
    }

    @Test(arguments: [EPERM, EACCES, ENOSYS, EOPNOTSUPP, EAFNOSUPPORT])
    func `an interface that nobody may set up is opened as it is`(_ error: CInt) throws {
      try NetworkNamespace.run {
        var opened: TapBackend?
        let result = onThreadRefusing(test_call_link_flags, error) { opened = try? TapBackend("tap0") }
        #expect(result == 0)
        #expect(opened?.interface == "tap0")
      }
    }

    @Test func `one queue of somebody's multi-queue interface will do`() throws {
      try NetworkNamespace.run {
        #expect(makePersistentTap("theirs", multiQueue: true) == 0)
        let opened = try TapQueue.open(name: "theirs", count: 1)
        #expect(opened.first?.isMultiQueue == true)
      }
    }

    @Test func `each refusal of the kernel says what to do, and leaves no descriptor open`() throws {
      let before = settledDescriptors(of: "/dev/net/tun")
      try NetworkNamespace.run {
        #expect(refusal("a-name-of-sixteen", 1)?.code == .invalidConfiguration)
        #expect(refusal("a-name-of-15-by", 1) == nil)
        for name in ["a b", "a/b", "a:b", "a%d", ".", ".."] {
          #expect(refusal(name, 1)?.code == .invalidConfiguration, "\(name)")
        }
        // Another descriptor holds the only queue.
        let holder = try TapQueue.open(name: "held", count: 1)
        let held = refusal("held", 1)
        #expect(held?.code == .inUse)
        #expect(held?.errno == EBUSY)
        withExtendedLifetime(holder) {}
        // Not a multi-queue interface, and no TAP interface at all.
        #expect(makePersistentTap("single", multiQueue: false) == 0)
        let single = refusal("single", 2)
        #expect(single?.code == .invalidConfiguration)
        #expect(single?.description.contains("multi_queue") == true)
        #expect(refusal("lo", 1)?.code == .invalidConfiguration)
        // MAX_TAP_QUEUES of the kernel is 256.
        let many = refusal("many", 257)
        #expect(many?.code == .notOffered)
        #expect(many?.description.contains("256") == true)
      }
      #expect(openDescriptors(of: "/dev/net/tun") == before)
    }
  }
}
