import CNetdevSystem
import CTestSupport
import Foundation
import Glibc
import Logging
import Netdev
import Synchronization
import TestSupport
import Testing
import VhostUser
import VirtioNet

/// Several programs that want to listen at the same path.
@Suite(.timeLimit(.minutes(5))) struct ListenerRaceTests {
  /// Each leaves its file behind every other time, as one that was killed does.
  @Test func `one at a time has the path, and whoever has it keeps it until he leaves`() async throws {
    let contest = Contest(path: SocketFiles.makePath())
    for contender in 0..<3 { contest.enter(contender) }
    try await eventually("all have tried", within: .seconds(240)) { contest.tally.withLock { $0.finished } == 3 }
    let outcome = contest.tally.withLock { $0 }
    #expect(outcome.faults.isEmpty)
    #expect(outcome.wins > 0)
    // Nobody is shut out by what they have left behind.
    var file = netdev_file()
    let listener = unsafe netdev_unix_listen(contest.path, &file)
    #expect(listener >= 0)
    if listener >= 0 { close(listener) }
    unsafe unlink(contest.path)
    let name = URL(filePath: contest.path).lastPathComponent
    let left = try FileManager.default.contentsOfDirectory(atPath: "/tmp").filter { $0.hasPrefix(name) }
    #expect(left.isEmpty, "names for a moment are left")
  }

  @Test func `a listener whose file is removed or replaced has it again, or says who has it`() async throws {
    let path = SocketFiles.makePath()
    let log = RecordedLog()
    var options = VhostUserTransport.Options(path: path, role: .listen)
    options.logger = log.logger(level: .debug)
    var configuration = NetworkDevice.Configuration()
    configuration.logger = log.logger(level: .debug)
    configuration.queueSize = 16
    let transport = try VhostUserTransport(options)
    async let opening = NetworkDevice.open(
      driver: VirtioNetDriver(transport: transport), configuration: configuration)
    // While it waits for the first one.
    try await eventually("it listens") { fileExists(path) }
    unsafe unlink(path)
    try await eventually("it listens again") { fileExists(path) }
    let backend = ScriptedBackend(isClient: true, path: path)
    let device = try await opening
    // While the back-end has it.
    func recoveries() -> UInt64 { device.queues[0].statistics.driver.recoveries }
    unsafe unlink(path)
    backend.hangUp()
    try await eventually("it is found where it was") { recoveries() == 1 && device.isLinkUp }
    // Another one takes the path.
    unsafe unlink(path)
    var file = netdev_file()
    let other = unsafe netdev_unix_listen(path, &file)
    #expect(other >= 0)
    backend.hangUp()
    try await eventually("who has it is told") {
      log.all.contains { $0.message == "the device is not back yet" && $0.metadata["error"]?.contains("busy") == true }
    }
    unsafe netdev_unix_close_listener(other, path, file)
    try await eventually("it has it again") { recoveries() == 2 && device.isLinkUp }
    try await device.close()
    backend.end()
    #expect(!fileExists(path))
  }

  @Test func `where this name alone is permitted it is listened on without another, a stale one too`() throws {
    let path = SocketFiles.makePath()
    defer { unsafe unlink(path) }
    for error in [EACCES, EPERM, EROFS, EINVAL, ENOSYS] {
      var results: [CInt] = []
      let refused = onThreadRefusing(test_call_renameat2, error) {
        var file = netdev_file()
        // The first leaves its file behind.
        for _ in 0..<2 {
          let listener = unsafe netdev_unix_listen(path, &file)
          results.append(listener)
          close(listener)
        }
      }
      try #require(refused == 0)
      #expect(results.allSatisfy { $0 >= 0 }, "errno \(error): \(results)")
      #expect(fileExists(path))
    }
    let name = URL(filePath: path).lastPathComponent
    let left = try FileManager.default.contentsOfDirectory(atPath: "/tmp").filter { $0.hasPrefix(name) }
    #expect(left == [name])
  }

  @Test func `a path that leaves no room for another name is listened on all the same, a stale one too`() throws {
    let number = String(UInt32.random(in: 0x1000_0000 ... .max), radix: 16)
    let path = "/tmp/netdev-" + String(repeating: "l", count: 107 - 12 - number.count) + number
    defer { unsafe unlink(path) }
    var file = netdev_file()
    let stale = unsafe netdev_unix_listen(path, &file)
    try #require(stale >= 0)
    let second = unsafe netdev_unix_listen(path, &file)
    #expect(second == -EADDRINUSE)
    close(stale)
    let listener = unsafe netdev_unix_listen(path, &file)
    try #require(listener >= 0)
    unsafe netdev_unix_close_listener(listener, path, file)
    #expect(!fileExists(path))
  }
}

/// Who listens, in a thread each, over and over.
private final class Contest: Sendable {
  struct Tally {
    var wins = 0
    var holders = 0
    var finished = 0
    var faults: Set<String> = []
  }

  static let rounds = 2000
  let path: String
  let tally = Mutex(Tally())

  init(path: String) { self.path = path }

  func enter(_ contender: Int) {
    Thread.detachNewThread { [self] in
      for round in 0..<Self.rounds { listen(leavesFile: (contender + round) % 2 == 0) }
      tally.withLock { $0.finished += 1 }
    }
  }

  private func listen(leavesFile: Bool) {
    var file = netdev_file()
    let listener = unsafe netdev_unix_listen(path, &file)
    guard listener >= 0 else {
      return tally.withLock { tally in
        if listener != -EADDRINUSE { tally.faults.insert("refused: \(listener)") }
      }
    }
    tally.withLock { tally in
      tally.wins += 1
      tally.holders += 1
      if tally.holders > 1 { tally.faults.insert("two have it") }
    }
    sched_yield()
    var found = stat()
    let isThere = unsafe lstat(path, &found) == 0
    tally.withLock { tally in
      if !isThere || found.st_ino != file.inode { tally.faults.insert("another has taken it") }
      tally.holders -= 1
    }
    if leavesFile { close(listener) } else { unsafe netdev_unix_close_listener(listener, path, file) }
  }
}
