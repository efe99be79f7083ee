import PacketFormats
import Testing
import Virtio

/// The configuration of a network device.
@Suite struct NetConfigTests {
  private let all: FeatureSet = [.mac, .status, .mq, .mtu, .speedDuplex, .rss, .hashReport]
  private let bytes: [UInt8] = [
    0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 4, 0, 0xdc, 5, 0x10, 0x27, 0, 0, 1, 40, 128, 0, 0xff, 1, 0, 0,
  ]

  private func refusal(_ change: (inout [UInt8]) -> Void) -> NetConfigError? {
    var changed = bytes
    change(&changed)
    let config = CopiedConfig(changed)
    return violation { () throws(NetConfigError) in _ = try NetConfig(reading: config, features: all) }
  }

  @Test("Driver rule 4: every field is read in its natural width")
  func widths() throws {
    let mock = MockConfig(bytes)
    let config = try NetConfig(reading: mock, features: all)
    #expect(mock.faults.isEmpty)
    #expect(config.macAddress?.description == "52:54:00:12:34:56")
    #expect(config.status == .linkUp)
    #expect(config.maximumPairs == 4)
    #expect(config.mtu == 1500)
    #expect(config.speed == 10_000)
    #expect(config.duplex == .full)
    #expect(config.rssMaximumKeySize == 40)
    #expect(config.rssMaximumTableLength == 128)
    #expect(config.supportedHashTypes == 0x1ff)
  }

  @Test("Driver rule 4: 64 bits are two accesses of 32, the low one first")
  func wide() {
    let mock = MockConfig([UInt8](repeating: 0, count: 24) + [1, 0, 0, 0, 2, 0, 0, 0])
    #expect(mock.read64(at: 24) == 0x2_0000_0001)
    #expect(mock.accesses.map(\.offset) == [24, 28])
    #expect(mock.faults.isEmpty)
  }

  @Test("Driver rule 5: an address that changes between its bytes is never mixed")
  func tornAddress() throws {
    for flipAt in 0..<6 {
      let mock = MockConfig([0, 0, 0, 0, 0, 2])
      mock.beforeAccess = { mock, access in
        guard access == flipAt else { return }
        mock.bytes = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]
        mock.generationNow &+= 1
      }
      let address = try NetConfig(reading: mock, features: .mac).macAddress
      // The flip at the first access leaves one consistent reading; any later one has to be read again.
      #expect(address == MACAddress(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff), "flip at \(flipAt)")
    }
  }

  @Test("Driver rule 5: a generation that never stands still ends in an error, not in a loop")
  func unstable() {
    let mock = MockConfig(bytes)
    mock.beforeAccess = { mock, _ in mock.generationNow &+= 1 }
    let error = violation { () throws(NetConfigError) in _ = try NetConfig(reading: mock, features: all) }
    #expect(error == .unstable(attempts: 16))
  }

  @Test("Driver rule 5: what looked absurd while it changed is read again")
  func tornAbsurd() throws {
    let mock = MockConfig([0, 0, 0, 0, 0, 0])
    mock.beforeAccess = { mock, access in
      guard access == 5 else { return }
      mock.bytes = [2, 0, 0, 0, 0, 0]
      mock.generationNow &+= 1
    }
    #expect(try NetConfig(reading: mock, features: .mac).macAddress == MACAddress(2, 0, 0, 0, 0, 0))
  }

  @Test("Driver rule 6: only the fields that a feature brings are read, and a longer configuration is accepted")
  func gated() throws {
    let six = MockConfig([2, 0, 0, 0, 0, 1])
    let config = try NetConfig(reading: six, features: [.mac, .version1])
    #expect(config.macAddress == MACAddress(2, 0, 0, 0, 0, 1))
    #expect(config.status == nil && config.maximumPairs == nil && config.mtu == nil && config.speed == nil)
    #expect(six.accesses.allSatisfy { $0.offset < 6 } && six.faults.isEmpty)

    let error = violation { () throws(NetConfigError) in _ = try NetConfig(reading: six, features: [.mac, .status]) }
    #expect(error == .tooShort(length: 6, needed: 8))
    #expect(try NetConfig(reading: CopiedConfig([]), features: .version1) == NetConfig())
    let long = CopiedConfig(bytes + [UInt8](repeating: 0xff, count: 1000))
    #expect(try NetConfig(reading: long, features: .mtu).mtu == 1500)
  }

  @Test("§5.1.4.1: an absurd address, status, pair count or MTU is refused by name")
  func absurd() {
    #expect(refusal { $0[0...5] = [0, 0, 0, 0, 0, 0] } == .macAddress(MACAddress(rawValue: 0)))
    #expect(refusal { $0[0] = 0x53 } == .macAddress(MACAddress(0x53, 0x54, 0, 0x12, 0x34, 0x56)))
    #expect(refusal { $0[6...7] = [0xff, 0xff] } == .status(0xffff))
    #expect(refusal { $0[8...9] = [0, 0] } == .maximumPairs(0))
    #expect(refusal { $0[8...9] = [1, 0x80] } == .maximumPairs(0x8001))
    #expect(refusal { $0[10...11] = [67, 0] } == .mtu(67))
    #expect(refusal { $0[10...11] = [68, 0] } == nil)
  }

  @Test("§5.1.4.2: speed and duplex beyond the numbers given are unknown; full duplex is 1 (trap 6)")
  func speed() throws {
    var changed = bytes
    changed[12...16] = [0xff, 0xff, 0xff, 0xff, 0xff]
    let unknown = try NetConfig(reading: CopiedConfig(changed), features: all)
    #expect(unknown.speed == nil && unknown.duplex == nil)
    changed[12...16] = [0xff, 0xff, 0xff, 0x7f, 0]
    let half = try NetConfig(reading: CopiedConfig(changed), features: all)
    #expect(half.speed == 0x7fff_ffff && half.duplex == .half)
  }
}
