import CNetdevSystem
import CTestSupport
import Foundation
import Glibc
import LibeventConcurrency
import TestSupport
import Testing

@testable import VhostUser

/// The process behind a connection: that it has exited is what proves that nobody writes to our memory any more.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(2))) struct PeerProcessTests {
  static let canMakeNamespaces = geteuid() == 0

  /// A socket to which a process of another namespace of process numbers connects.
  private final class Ground {
    let path = SocketFiles.makePath()
    let listener: CInt
    let process: CInt
    private(set) var connections: [CInt] = []

    init(connections count: CInt) async throws {
      var file = netdev_file()
      listener = unsafe netdev_unix_listen(path, &file)
      try #require(listener >= 0)
      process = unsafe test_start_connected_process(path, count)
      try #require(process > 0)
      while connections.count < Int(count) {
        var accepted: CInt = -1
        try await eventually("it connects") {
          accepted = netdev_unix_accept(listener)
          return accepted >= 0
        }
        connections.append(accepted)
      }
    }

    func kill() { test_end_process(process) }

    func close() {
      for connection in connections { Glibc.close(connection) }
      Glibc.close(listener)
    }
  }

  /// What sessions have of the processes behind them, on the loop where they live.
  private actor Sessions {
    nonisolated let loop: LoopExecutor
    private(set) var processes: [PeerProcess] = []
    private(set) var exits = 0
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

    init() throws { loop = try LoopExecutor(name: "control") }

    func connect(_ connection: CInt) -> Int32? {
      let found = PeerProcess.find(behind: connection, loop: loop, known: processes) { [weak self] in
        self?.assumeIsolated { $0.exits += 1 }
      }
      if let found { processes.append(found) }
      return found?.identifier
    }

    var distinct: Int { Set(processes.map { ObjectIdentifier($0) }).count }
    var allHaveExited: Bool { processes.allSatisfy { $0.hasExited } }
    func forget() { processes = [] }
  }

  @Test(arguments: [ENOPROTOOPT, EPERM, EACCES, ENOSYS, EOPNOTSUPP])
  func `where the socket does not name its process, its number does`(_ error: CInt) {
    var ends: [CInt] = [-1, -1]
    #expect(unsafe netdev_unix_pair(&ends) == 0)
    defer { for end in ends { netdev_close(end) } }
    var (descriptor, number): (CInt, Int32) = (-1, 0)
    let result = onThreadRefusing(test_call_peer_descriptor, error) {
      descriptor = unsafe netdev_unix_peer_process(ends[0], &number)
    }
    #expect(result == 0)
    #expect(descriptor >= 0 && number == getpid())
    if descriptor >= 0 { netdev_close(descriptor) }
  }

  private static func processDescriptors() -> Int {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    return names.count { name in
      let target = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")) ?? ""
      return target.contains("pidfd")
    }
  }

  @Test(.enabled(if: PeerProcessTests.canMakeNamespaces, "needs root"))
  func `a process of another namespace of process numbers counts as gone when it is gone`() async throws {
    let ground = try await Ground(connections: 1)
    let sessions = try Sessions()
    #expect(await sessions.connect(ground.connections[0]) == ground.process)
    #expect(await !sessions.allHaveExited)
    ground.kill()
    try await eventually("its exit is seen") { await sessions.exits == 1 }
    #expect(await sessions.allHaveExited)
    await sessions.forget()
    ground.close()
  }

  @Test(.enabled(if: PeerProcessTests.canMakeNamespaces, "needs root"))
  func `a process that has no number here, as one outside of a container, counts as gone when it is gone`() {
    let path = SocketFiles.makePath()
    let ended = unsafe test_watch_from_namespace(path, netdev_unix_peer_process)
    #expect(ended == 0)
    unsafe unlink(path)
  }

  @Test(.enabled(if: PeerProcessTests.canMakeNamespaces, "needs root"))
  func `a process that connects again and again is watched once`() async throws {
    let before = Self.processDescriptors()
    let ground = try await Ground(connections: 4)
    let sessions = try Sessions()
    for connection in ground.connections { #expect(await sessions.connect(connection) == ground.process) }
    #expect(await sessions.processes.count == 4)
    #expect(await sessions.distinct == 1)
    #expect(Self.processDescriptors() == before + 1)
    ground.kill()
    try await eventually("its exit is seen, once") { await sessions.exits == 1 }
    #expect(await sessions.allHaveExited)
    await sessions.forget()
    try await eventually("nothing is left") { Self.processDescriptors() == before }
    ground.close()
  }
}
