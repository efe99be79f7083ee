import CTestSupport
import Glibc
import Netdev
import TestSupport
import Testing

/// A system that does not know the call which sees to it that memory is there: an older kernel, or a filter of system calls.
@Suite(.timeLimit(.minutes(1))) struct RefusedPopulationTests {
  @Test(arguments: [EINVAL, ENOSYS, EPERM, EACCES, EOPNOTSUPP])
  func `a pool is had without it`(_ error: CInt) throws {
    var made: PacketPool?
    let result = onThreadRefusing(test_call_populate, error) {
      made = try? PacketPool(.init(slots: 64, hugePages: false))
    }
    #expect(result == 0)
    let pool = try #require(made)
    let packets = try (0..<64).map { try Packet(copying: numbered($0), in: pool) }
    #expect(packets.allSatisfy { $0.isInPool })
  }

  @Test func `memory that is not there is still an error`() {
    var refusal: NetworkDeviceError?
    let result = onThreadRefusing(test_call_populate, ENOMEM) {
      do throws(NetworkDeviceError) { _ = try PacketPool(.init(slots: 64, hugePages: false)) } catch { refusal = error }
    }
    #expect(result == 0)
    #expect(refusal?.code == .outOfMemory)
  }
}
