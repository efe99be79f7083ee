import Glibc
import Netdev
import Responder
import Synchronization

/// What the server did, gathered from its queues as they end.
final class Report: Sendable {
  private let total = Mutex(ResponderStatistics())

  func add(_ statistics: ResponderStatistics) { total.withLock { $0 += statistics } }

  func print(_ queues: [QueueStatistics]) {
    for (index, queue) in queues.enumerated() {
      Swift.print(
        "queue \(index): \(queue.packetsReceived) received, \(queue.packetsReleased) sent, \(queue.packetsFailed) failed"
      )
    }
    Swift.print(total.withLock { $0.description })
  }
}

/// Prints each queue's rates once a second until cancelled.
func printRates(_ device: NetworkDevice) async throws {
  var before = device.statistics
  while true {
    try await Task.sleep(for: .seconds(1))
    let now = device.statistics
    for (index, (old, new)) in zip(before, now).enumerated() {
      let received = new.packetsReceived - old.packetsReceived
      let sent = new.packetsReleased - old.packetsReleased
      let bits = (new.bytesReceived - old.bytesReceived) * 8
      print("queue \(index): \(received) packets/s in (\(bits) bit/s), \(sent) packets/s out")
    }
    fflush(nil)
    before = now
  }
}
