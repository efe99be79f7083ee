/// Who drives the device.
enum Contender: Hashable, Sendable {
  /// A second testpmd, with DPDK's virtio-user port.
  case dpdk
  /// This framework, used in one of its ways.
  case ours(Way)

  /// The ways to use a queue.
  enum Way: String, CaseIterable, Sendable {
    /// Bursts, moved.
    case burst
    /// Packet by packet, going on when each is published.
    case await
    /// A pipeline.
    case pipeline
    /// Batches of 32 or a burst, each awaited until the device has released all of it.
    case sendBatch = "send-batch"
    /// Each packet awaited until the device has released it.
    case send
  }

  static let all = [Contender.dpdk] + Way.allCases.map { .ours($0) }

  /// The word for it on the command line.
  var name: String {
    switch self {
    case .dpdk: "dpdk"
    case .ours(let way): way.rawValue
    }
  }

  /// What a program writes; nil where this way is none in that scenario.
  func title(in scenario: Scenario) -> String? {
    guard case .ours(let way) = self else { return "DPDK virtio-user (testpmd \(scenario.driverMode))" }
    return switch (scenario, way) {
    case (.macswap, .burst): "receiveBurst + submit(burst)"
    case (.macswap, .await): "for await + submit"
    case (.macswap, .pipeline): "forward(from: packets)"
    case (.macswap, .sendBatch): "receiveBurst + send(burst)"
    case (.macswap, .send): "for await + send"
    case (.transmit, .burst): "makeBurst + submit(burst)"
    case (.transmit, .await): "Packet + submit"
    case (.transmit, .pipeline): "forward(from: packets made)"
    case (.transmit, .sendBatch): "send(contentsOf: 32 packets)"
    case (.transmit, .send): "Packet + send"
    case (.receive, .burst): "receiveBurst"
    case (.receive, .await): "for await"
    case (.receive, _): nil
    }
  }
}
