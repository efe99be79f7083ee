/// What goes between driver and device, and who makes the frames.
enum Scenario: String, CaseIterable, Sendable {
  /// A fixed number of frames goes round: the driver exchanges their addresses, the device returns them.
  case macswap
  /// The driver sends as fast as it can, the device drops.
  case transmit
  /// The device sends as fast as it can, the driver drops.
  case receive

  var title: String {
    switch self {
    case .macswap: "macswap loop"
    case .transmit: "transmit"
    case .receive: "receive"
    }
  }

  /// What testpmd does on the device's side.
  var deviceMode: String {
    switch self {
    case .macswap: "io"
    case .transmit: "rxonly"
    case .receive: "txonly"
    }
  }

  /// What testpmd does on the driver's side.
  var driverMode: String {
    switch self {
    case .macswap: "macswap"
    case .transmit: "txonly"
    case .receive: "rxonly"
    }
  }

  /// The rate that counts, of those that the device's port shows.
  func rate(_ counters: PortCounters) -> Double {
    self == .receive ? counters.sentPerSecond : counters.receivedPerSecond
  }
}

/// A scenario with frames of one size.
struct Case: Hashable, Sendable {
  let scenario: Scenario
  /// Bytes of a frame.
  let size: Int

  var title: String { "\(scenario.title), \(size) B" }
}
