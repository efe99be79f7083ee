internal import LibeventConcurrency
package import Netdev
package import VirtioDevice

// What a back-end says, in the words of the device interface.

extension NetworkDeviceError {
  /// The same failure.
  package init(_ error: BackendError) {
    let code: Code
    switch error.code {
    case .unavailable, .lost: code = .notFound
    case .permission: code = .notPermitted
    case .inUse: code = .busy
    case .invalidConfiguration, .notOffered: code = .invalidConfiguration
    case .closed: code = .closed
    default: code = .system
    }
    self.init(
      code, error.operation, offered: error.errno == 0 ? "" : "\(ErrorNumber(error.errno))", advice: error.advice)
  }
}

extension NetworkDeviceError {
  /// What the device, or what stands behind it, answered to `operation`: a back-end's own error as it is.
  init(_ error: DeviceError, _ operation: String) {
    switch error {
    case .backend(let error): self.init(error)
    default: self.init(.system, operation, offered: "\(error)")
    }
  }
}

extension PeerStatistics {
  /// The same counts.
  init(_ statistics: QueuePairStatistics) {
    self.init()
    transmittedFrames = statistics.transmittedFrames
    transmittedBytes = statistics.transmittedBytes
    receivedFrames = statistics.receivedFrames
    receivedBytes = statistics.receivedBytes
    drops = DeviceDrops(statistics.drops)
    kicks = statistics.kicks
    interrupts = statistics.calls
    interruptsSuppressed = statistics.suppressedCalls
  }
}

extension DeviceDrops {
  /// The same counts, by the names of their reasons.
  init(_ counts: DropCounts) {
    self.init()
    for reason in DropReason.allCases {
      let (transmitted, received) = (counts[.transmitted, reason], counts[.received, reason])
      if transmitted > 0 { self.transmitted["\(reason)"] = transmitted }
      if received > 0 { self.received["\(reason)"] = received }
    }
  }
}
