import PacketFormats
import Testing
import Virtio

/// Commands of the control virtqueue as bytes (VIRTIO 1.4 §5.1.9.5).
@Suite struct NetControlCommandTests {
  private func read(_ bytes: [UInt8]) -> NetControlCommand? {
    NetControlCommand(length: bytes.count) { position, count in
      // Nothing outside is ever asked for.
      precondition(position >= 0 && count >= 0 && position + count <= bytes.count)
      return Array(bytes[position..<position + count])
    }
  }

  private static let station = MACAddress(2, 3, 4, 5, 6, 7)
  private static let group = MACAddress(1, 0, 0x5e, 0, 0, 1)

  private static let examples: [(NetControlCommand, [UInt8], FeatureSet)] = [
    (.receive(.promiscuous, true), [0, 0, 1], .ctrlRX), (.receive(.promiscuous, false), [0, 0, 0], .ctrlRX),
    (.receive(.allMulticast, true), [0, 1, 1], .ctrlRX), (.receive(.allUnicast, true), [0, 2, 1], .ctrlRXExtra),
    (.receive(.noMulticast, true), [0, 3, 1], .ctrlRXExtra), (.receive(.noUnicast, true), [0, 4, 1], .ctrlRXExtra),
    (.receive(.noBroadcast, true), [0, 5, 1], .ctrlRXExtra),
    (
      .addressTable(unicast: [station], multicast: [group, group]),
      [1, 0, 1, 0, 0, 0, 2, 3, 4, 5, 6, 7, 2, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1, 1, 0, 0x5e, 0, 0, 1], .ctrlRX
    ),
    (.addressTable(unicast: [], multicast: []), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], .ctrlRX),
    (.address(station), [1, 1, 2, 3, 4, 5, 6, 7], .ctrlMACAddress),
    (.vlan(0x123, isAdded: true), [2, 0, 0x23, 1], .ctrlVLAN), (.vlan(5, isAdded: false), [2, 1, 5, 0], .ctrlVLAN),
    (.announced, [3, 0], .guestAnnounce), (.queuePairs(0x201), [4, 0, 1, 2], .mq),
  ]

  @Test(arguments: examples.indices) func `a command is written as the text says, and read back`(index: Int) {
    let (command, bytes, feature) = Self.examples[index]
    #expect(command.header + command.payload == bytes)
    #expect(read(bytes) == command)
    #expect(command.feature == feature)
  }

  @Test(arguments: examples.indices) func `a command that is cut short, or longer than it says, is none`(index: Int) {
    let bytes = Self.examples[index].1
    for length in 0..<bytes.count { #expect(read(Array(bytes.prefix(length))) == nil, "\(length)") }
    #expect(read(bytes + [0]) == nil)
  }

  @Test func `Device rule 16: a table says any number of addresses, and what is not there is not read`() {
    for count: [UInt8] in [[0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0x80], [2, 0, 0, 0], [0xab, 0xaa, 0xaa, 0x2a]] {
      #expect(read([1, 0] + count + [2, 3, 4, 5, 6, 7] + [0, 0, 0, 0]) == nil)
      #expect(read([1, 0, 0, 0, 0, 0] + count + [1, 3, 4, 5, 6, 7]) == nil)
    }
  }

  @Test func `Device rule 16: a table that is longer than a reader keeps stands for all of its kind`() {
    let most = NetControlCommand.maximumAddresses
    func table(_ unicast: Int, _ multicast: Int) -> NetControlCommand {
      .addressTable(
        unicast: (0..<unicast).map { MACAddress(2, 0, 0, 0, 0, UInt8($0)) },
        multicast: (0..<multicast).map { MACAddress(3, 0, 0, 0, 0, UInt8($0)) })
    }
    func readBack(_ command: NetControlCommand) -> NetControlCommand? { read(command.header + command.payload) }
    #expect(readBack(table(most, most)) == table(most, most))
    guard case .addressTable(nil, let groups?)? = readBack(table(most + 1, 3)) else {
      Issue.record("too many stations are all stations")
      return
    }
    #expect(groups.count == 3)
    guard case .addressTable(let stations?, nil)? = readBack(table(2, most + 1)) else {
      Issue.record("too many groups are all groups")
      return
    }
    #expect(stations.count == 2)
  }

  @Test func `a group among the stations, a station among the groups, and what nobody has defined, are no commands`() {
    #expect(read([1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]) == nil)
    #expect(read([1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1]) == nil)
    for bytes: [UInt8] in [
      [0, 6, 1], [0, 0, 2], [1, 2], [2, 2, 0, 0], [3, 1], [4, 1, 1, 0], [5, 0], [255, 255],
    ] {
      #expect(read(bytes) == nil)
    }
  }
}
