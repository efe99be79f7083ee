import LibeventConcurrency
import Netdev
import NetdevDevices
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import Virtio
import VirtioDevice
import VirtioNet

/// The control virtqueue from the program to the device of this process and back, with both formats of rings and engines on either
/// loop.
@Suite(.timeLimit(.minutes(1))) struct ControlLoopbackTests {
  private func frame(_ number: UInt8, to destination: MACAddress, vlan: UInt8? = nil) -> [UInt8] {
    var bytes = (0..<6).map { destination[$0] } + [2, 0, 0, 0, 0, 1]
    if let vlan { bytes += [0x81, 0, 0, vlan] }
    return bytes + [0x88, 0xb5, number] + [UInt8](repeating: 0, count: 46)
  }

  /// Sends frames to these and says which have come back when the last, to everybody, has.
  private func exchange(_ device: NetworkDevice, _ frames: [[UInt8]]) async throws -> [Int] {
    let queue = device.queues[0]
    let last = frame(0xff, to: .broadcast)
    for bytes in frames + [last] { try await queue.send(Packet(copying: bytes, in: device.pool)) }
    var found: [Int] = []
    for await packet in queue.packets {
      let bytes = packet.array
      if bytes == last { break }
      found.append(try #require(frames.firstIndex(of: bytes)))
    }
    return found
  }

  private static let other = MACAddress(2, 0, 0, 0, 0, 9)
  private static let group = MACAddress(1, 0, 0x5e, 0, 0, 9)

  @Test(arguments: ControlledLoopback.all) func `what is received follows from mode, tables and address`(
    one: ControlledLoopback
  ) async throws {
    let (device, model) = try await one.open()
    let own = try device.hardwareAddress
    let frames = [own, Self.other, Self.group].enumerated().map { frame(UInt8($0.offset), to: $0.element) }
    #expect(try await exchange(device, frames) == [0, 1, 2])
    try await device.setReceiveMode(.addressed)
    #expect(try await exchange(device, frames) == [0])
    #expect(device.peerStatistics[0].drops.transmitted["filtered"] == 2)
    try await device.setReceiveAddresses(unicast: [Self.other], multicast: [])
    #expect(try await exchange(device, frames) == [0, 1])
    try await device.setReceiveAddresses(unicast: [], multicast: [Self.group])
    #expect(try await exchange(device, frames) == [0, 2])
    var mode = ReceiveMode.addressed
    mode.allUnicast = true
    mode.noMulticast = true
    try await device.setReceiveMode(mode)
    #expect(try await exchange(device, frames) == [0, 1])
    try await device.setReceiveMode(.addressed)
    try await device.setHardwareAddress(Self.other)
    #expect(model.macAddress == Self.other)
    #expect(try await exchange(device, frames) == [1, 2])
    try await device.setReceiveMode(.promiscuous)
    #expect(try await exchange(device, frames) == [0, 1, 2])
    try await device.close()
    // The next program finds the device as it was.
    #expect(model.macAddress == own)
    #expect(model.receiveFilter.passesAll)
  }

  @Test(arguments: ControlledLoopback.all)
  func `frames of VLANs are received that were added, from a device that filters them`(
    one: ControlledLoopback
  ) async throws {
    let (device, _) = try await one.open(vlanFilter: true)
    let own = try device.hardwareAddress
    let frames = [nil, 0, 7, 8].enumerated().map { frame(UInt8($0.offset), to: own, vlan: $0.element) }
    #expect(try await exchange(device, frames) == [0, 1, 2, 3])
    try await device.setReceiveMode(.addressed)
    #expect(try await exchange(device, frames) == [0, 1])
    try await device.addVLAN(7)
    #expect(try await exchange(device, frames) == [0, 1, 2])
    try await device.addVLAN(8)
    try await device.removeVLAN(7)
    #expect(try await exchange(device, frames) == [0, 1, 3])
    try await device.close()
  }

  @Test(arguments: ControlledLoopback.all) func `all pairs that were asked for are in use when the device is open`(
    one: ControlledLoopback
  )
    async throws
  {
    let (device, model) = try await one.open(pairs: 4)
    #expect(model.activePairs == 4)
    for queue in device.queues {
      let bytes = frame(UInt8(queue.index), to: .broadcast)
      try await queue.send(Packet(copying: bytes, in: device.pool))
      var packets = queue.packets.makeAsyncIterator()
      let packet = await packets.next()
      #expect(packet?.array == bytes)
    }
    try await device.close()
    #expect(model.activePairs == 1)
  }

  @Test(arguments: ControlledLoopback.all) func `a device asks for an announcement, and is told that it was made`(
    one: ControlledLoopback
  ) async throws {
    let (device, model) = try await one.open()
    var requests = device.announcementRequests.makeAsyncIterator()
    #expect(model.requestAnnouncement())
    #expect(await requests.next() != nil)
    #expect(model.awaitsAnnouncement)
    try await device.acknowledgeAnnouncement()
    #expect(!model.awaitsAnnouncement)
    #expect(device.isLinkUp)
    try await device.close()
    #expect(await requests.next() == nil)
  }

  @Test func `devices that are opened by a URL have a control virtqueue`() async throws {
    for url in ["loopback:?queues=2", "loopback:?packed=1", "host-udp:127.0.0.1:0?vlan_filter=1"] {
      let device = try await NetworkDevice.open(url)
      try await device.setReceiveMode(.addressed)
      try await device.setHardwareAddress(Self.other)
      try await device.close()
    }
  }
}
