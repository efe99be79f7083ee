import PacketSocket
import Testing

@testable import NetdevDevices

/// What a device URL that says nothing sensible is answered.
@Suite struct DeviceURLTests {
  private func refusal(_ url: String) throws -> NetworkDeviceError {
    try #require(throws: NetworkDeviceError.self) { _ = try DeviceSpecification(url) }
  }

  @Test(arguments: ["lo", "lo:", "lo?queues=2", "lo:?queues=2"])
  func `an interface that is named as if it were a device is told its schemes`(_ url: String) throws {
    let error = try refusal(url)
    #expect(error.code == .invalidConfiguration)
    #expect(error.advice.contains("packet:lo") && error.advice.contains("tap:"), "\(error)")
  }

  @Test(arguments: ["nonsense", "nonsense:", ":", "", "lo\0", "lo\0:"])
  func `what is neither is told what there is`(_ url: String) throws {
    let error = try refusal(url)
    #expect(error.advice.contains("packet:") && error.advice.contains("tap:"), "\(error)")
    #expect(!error.advice.contains("packet:nonsense"), "\(error)")
  }

  @Test(arguments: [
    (
      "loopback:?queue=2",
      "event_idx, in_order, indirect, lossless, mrg_rxbuf, packed, placement, queue_size, queues, vlan_filter"
    ),
    (
      "tap:tap0?mtu=1500",
      "event_idx, in_order, indirect, mrg_rxbuf, packed, placement, queue_size, queues, vlan_filter"
    ),
    ("packet:eth0?placement=own", "promiscuous, queue_size, queues"),
    (
      "host-udp:127.0.0.1:7?server=1",
      "event_idx, in_order, indirect, mrg_rxbuf, packed, placement, queue_size, queues, vlan_filter"
    ),
    (
      "vhost-user:/run/x?lossless=1",
      "connect_timeout, event_idx, in_flight, in_order, indirect, kicks, mac, mrg_rxbuf, mtu, packed, queue_size, "
        + "queues, reconnect, serve_timeout, server, timeout"
    ),
  ])
  func `an option that a device does not have is told those that it has`(_ url: String, _ options: String) throws {
    let error = try refusal(url)
    #expect(error.advice.hasSuffix("device has \(options)"), "\(error)")
  }

  @Test(arguments: ["packet:", "packet:?queues=2"]) func `packet: wants an interface`(_ url: String) throws {
    #expect(try refusal(url).advice.contains("packet:eth0"))
  }

  @Test func `packet: has its options`() throws {
    let specification = try DeviceSpecification("packet:eth0?queues=3&queue_size=512&promiscuous=1")
    #expect(specification.queuePairs == 3)
    #expect(specification.queueSize == 512)
    guard case .packet("eth0", let options) = specification.kind else {
      Issue.record("\(specification.kind)")
      return
    }
    #expect(options.isPromiscuous)
  }
}
