import CNetdevSystem
import HostInterfaces
import LibeventConcurrency
import Synchronization
import TestSupport
import Testing

/// Whoever watches an interface goes on with that, whatever the system refuses.
@Suite(.quietLoops, .timeLimit(.minutes(2))) struct LinkWatchTests {
  private final class Log: Sendable {
    struct State {
      var looks = 0
      var unknown = 0
      var found = false
    }
    let state = Mutex(State())
  }

  @Test func `an interface that cannot be found is looked for again, which is told once, after a while`() async throws {
    // Pauses of 1, 2, 4 … milliseconds.
    let refusals = 12
    let log = Log()
    let socket = try #require(LinkSocket())
    let link = try #require(socket.look("lo"))
    let watch = try LinkWatch(nil, reports: LoopReports()) { _, _ in
      true
    } follow: {
      let looks = log.state.withLock { log in
        log.looks += 1
        return log.looks
      }
      return looks <= refusals ? .unknown : .found(socket, link)
    } onLook: { seen in
      log.state.withLock { log in
        switch seen {
        case .link(let seen): log.found = seen.index == link.index
        case .unknown: log.unknown += 1
        case .gone: Issue.record("gone")
        }
      }
    }
    try await eventually("it is found") { log.state.withLock { $0.found } }
    #expect(log.state.withLock { $0.looks } == refusals + 1)
    #expect(log.state.withLock { $0.unknown } == 1)
    watch.close()
  }
}
