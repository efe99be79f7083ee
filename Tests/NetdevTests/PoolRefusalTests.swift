import Foundation
import Glibc
import Netdev
import Testing

/// What a pool says whose memory cannot be had.
@Suite struct PoolRefusalTests {
  @Test func `without descriptors it is the system's refusal, and no advice to ask for less`() async {
    await #expect(processExitsWith: .success) {
      // Below all that are open: nothing can be opened any more.
      var limit = rlimit(rlim_cur: 0, rlim_max: 4096)
      guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(2) }
      do throws(NetworkDeviceError) {
        _ = try PacketPool(.init(slots: 16, hugePages: false))
        exit(3)
      } catch {
        guard error.code == .system else { exit(4) }
        guard error.description.contains("EMFILE (24)"), error.advice.contains("ulimit -n") else { exit(5) }
      }
      _exit(EXIT_SUCCESS)
    }
  }

  @Test func `memory that is not to be had is outOfMemory, with the number's name`() async {
    await #expect(processExitsWith: .success) {
      // A file of 128 MiB may be made; no address space is left for it.
      guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8),
        let pages = text.split(separator: " ").first.flatMap({ rlim_t($0) })
      else { exit(6) }
      var limit = rlimit(rlim_cur: pages * 4096 + (64 << 20), rlim_max: pages * 4096 + (64 << 20))
      guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 else { exit(2) }
      do throws(NetworkDeviceError) {
        _ = try PacketPool(.init(slots: 65_536, hugePages: false))
        exit(3)
      } catch {
        guard error.code == .outOfMemory else { exit(4) }
        guard error.description.contains("ENOMEM (12)"), error.advice.contains("fewer") else { exit(5) }
      }
      _exit(EXIT_SUCCESS)
    }
  }
}
