import CNetdevSystem
import Foundation
import Glibc
import LibeventConcurrency
import Testing

/// Processes without descriptors to spare, and ones that were started without standard input and output.
@Suite(.timeLimit(.minutes(2))) struct ScarceDescriptorTests {
  @Test func `however few descriptors are left, a loop is made, or refused with an error`() async {
    // In a process of its own: libevent would end it.
    await #expect(processExitsWith: .success) {
      var made = 0
      var refused = 0
      func open() -> Int { (0..<CInt(512)).count { fcntl($0, F_GETFD) >= 0 } }
      // The runtime opens what it wants before anything is counted.
      guard let first = try? LoopExecutor(name: "first"), await LoopScope(first).run({ _ in first.isOnLoop }) else {
        exit(2)
      }
      try? await Task.sleep(for: .milliseconds(50))
      let used = open()
      for left in 0..<16 {
        var limit = rlimit(rlim_cur: rlim_t(used + left), rlim_max: 4096)
        guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(3) }
        do {
          let loop = try LoopExecutor(name: "test")
          guard await LoopScope(loop).run({ _ in loop.isOnLoop }) else { exit(4) }
          made += 1
        } catch {
          guard error is LoopError else { exit(5) }
          refused += 1
        }
        limit.rlim_cur = 4096
        guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(6) }
        // Nothing of a loop that was refused, or has gone, is left.
        var patience = 5000
        while open() > used, patience > 0 {
          usleep(1000)
          patience -= 1
        }
        guard open() == used else { exit(7) }
      }
      withExtendedLifetime(first) {}
      exit(made > 0 && refused > 0 ? EXIT_SUCCESS : 8)
    }
  }

  @Test func `free descriptors are counted as the limit leaves them, however many are asked for`() async {
    await #expect(processExitsWith: .success) {
      func limit(_ count: Int) -> Bool {
        var limit = rlimit(rlim_cur: rlim_t(count), rlim_max: 4096)
        return unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
      }
      guard limit(4096), netdev_descriptors_free(64) == 64, netdev_descriptors_free(0) == 0 else { exit(2) }
      // Some in the last block of numbers that is looked at, and some below.
      for number in CInt(100)...110 { guard fcntl(0, F_DUPFD_CLOEXEC, number) == number else { exit(3) } }
      for top in [0, 3, 4, 40, 64, 99, 105, 111, 112, 130, 300] {
        guard limit(top) else { exit(4) }
        func count() -> Int { (3..<max(3, CInt(top))).count { fcntl($0, F_GETFD) < 0 } }
        for wanted in [1, 8, 64, 1000] {
          // The runtime may open something of its own meanwhile: then once more.
          var (free, counted) = (-1, CInt(-1))
          while free != count() {
            free = count()
            counted = netdev_descriptors_free(CInt(wanted))
          }
          guard counted == CInt(min(free, wanted)) else { exit(5) }
        }
      }
      exit(EXIT_SUCCESS)
    }
  }

  @Test func `a process without standard input and output has none afterwards: what is printed lands in no device`()
    async
  {
    await #expect(processExitsWith: .success) {
      // The runtime opens what it wants before anything is closed.
      guard let first = try? LoopExecutor(name: "first"), await LoopScope(first).run({ _ in first.isOnLoop }) else {
        exit(2)
      }
      try? await Task.sleep(for: .milliseconds(50))
      for descriptor in CInt(0)...2 { close(descriptor) }
      let loop = try LoopExecutor(name: "test")
      guard await LoopScope(loop).run({ _ in loop.isOnLoop }) else { exit(3) }
      var ends: [CInt] = [-1, -1]
      var udp = netdev_udp_socket()
      let local = netdev_udp_address(high: 0, low: 0xffff_7f00_0001)
      guard unsafe netdev_udp_open(local, 0, 4096, &udp) > 0 else { exit(10) }
      let descriptors = [
        netdev_eventfd_create(), netdev_timerfd_create(), unsafe netdev_memfd_create("test", 4096, false),
        udp.descriptor, unsafe netdev_unix_pair(&ends),
      ]
      guard descriptors.dropLast().allSatisfy({ $0 > 2 }), descriptors.last == 0, ends.allSatisfy({ $0 > 2 }) else {
        exit(4)
      }
      // A descriptor that somebody hands over, too.
      guard unsafe netdev_unix_send(ends[0], [1], 1, [descriptors[0]], 1) == 1 else { exit(5) }
      var byte: UInt8 = 0
      var arrived = [CInt](repeating: -1, count: Int(NETDEV_UNIX_DESCRIPTORS))
      var count: CInt = 0
      var isTruncated = false
      guard unsafe netdev_unix_receive(ends[1], &byte, 1, &arrived, &count, &isTruncated) == 1, count == 1 else {
        exit(6)
      }
      guard arrived[0] > 2 else { exit(7) }
      let all = descriptors.dropLast() + ends + [arrived[0]]
      guard all.allSatisfy({ fcntl($0, F_GETFD) == FD_CLOEXEC }) else { exit(8) }
      guard (CInt(0)...2).allSatisfy({ fcntl($0, F_GETFD) < 0 }) else { exit(9) }
      exit(EXIT_SUCCESS)
    }
  }

  @Test func `memory that is not to be had is an error when it is mapped, not a signal when it is used`() throws {
    // As a page that a control group forbids: the file has no such page.
    let descriptor = unsafe netdev_memfd_create("test", 4096, false)
    try #require(descriptor > 2)
    defer { close(descriptor) }
    #expect(unsafe netdev_map_shared(descriptor, 8192) == nil)
    #expect(errno == EFAULT)
    let mapped = unsafe netdev_map_shared(descriptor, 4096)
    #expect(unsafe mapped != nil)
    if let mapped = unsafe mapped { unsafe netdev_unmap(mapped, 4096) }
  }
}
