import CNetdevSystem
import CTestSupport
import Glibc
import NetdevTesting
import Synchronization
import TestSupport
import Testing

@testable import VirtioDevice

/// Runs a piece of a test where the system refuses a call, as in a sandbox: on a thread of its own, which turns the loop
/// meanwhile.
func refusing(_ call: test_call, _ error: CInt, on hand: HandTurnedLoop, _ body: () -> Void) {
  let result = onThreadRefusing(call, error) {
    hand.arrive()
    body()
    netdev_set_current_loop(nil)
  }
  #expect(result == 0)
  hand.arrive()
}

/// What a device told beside frames.
final class EventLog: Sendable {
  private let seen = Mutex<[PortEvent]>([])

  var events: [PortEvent] { seen.withLock { $0 } }

  /// Why the back-end was lost, if it was.
  var loss: BackendError? {
    for event in events { if case .lost(let error) = event { return error } }
    return nil
  }

  /// A configuration whose device tells this log.
  func configuration(queuePairs: Int? = nil) -> VirtioNetDevice.Configuration {
    var configuration = VirtioNetDevice.Configuration()
    configuration.queuePairs = queuePairs
    configuration.onEvent = { event, _ in self.seen.withLock { $0.append(event) } }
    return configuration
  }
}

extension HandTurnedLoop {
  /// Polls for a fifth of a second as a loop would that cannot sleep; how often `rig` was served meanwhile.
  func idleServices(of rig: Rig) -> UInt64 {
    let before = rig.engine.statistics.services
    for _ in 0..<200 {
      poll()
      usleep(1000)
    }
    return rig.engine.statistics.services - before
  }
}
