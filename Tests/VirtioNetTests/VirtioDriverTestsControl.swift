import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import Virtio
import VirtioNet

/// The control virtqueue, driver side, against a device that serves it or does not (VIRTIO 1.4 §5.1.9.5).
@Suite(.timeLimit(.minutes(1))) struct VirtioDriverTestsControl {
  static func configuration(pairs: UInt16 = 1, mq: Bool = false) -> LyingDevice.Configuration {
    var configuration = LyingDevice.Configuration()
    configuration.features.formUnion([
      .ctrlVQ, .ctrlRX, .ctrlRXExtra, .ctrlVLAN, .ctrlMACAddress, .guestAnnounce,
    ])
    if mq { configuration.features.insert(.mq) }
    configuration.space = LyingDevice.Space.bytes(pairs: pairs)
    configuration.pairSwitching = .controlQueue
    return configuration
  }

  static func open(
    _ rings: RingFormat = .split, pairs: UInt16 = 1, asked: Int = 1, options: VirtioNetDriver.Options = .init(),
    recovery: VirtioRecovery? = nil
  ) async throws -> Lying {
    var configuration = configuration(pairs: pairs, mq: pairs > 1)
    configuration.recovery = recovery
    return try await Lying(configuration, options: options, queuePairs: asked, rings: rings)
  }

  static func commands(_ lying: Lying) async -> [NetControlCommand?] {
    await lying.side.performControl { $0.understood } ?? []
  }

  func code(_ body: () async throws -> Void) async -> NetworkDeviceError.Code? {
    do {
      try await body()
      return nil
    } catch {
      return (error as? NetworkDeviceError)?.code
    }
  }

  static let station = MACAddress(2, 0, 0, 0, 0, 9)
  static let group = MACAddress(1, 0, 0x5e, 0, 0, 9)

  // MARK: Where it is, and what is accepted

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 23: it lies behind the queues of all pairs where MQ was agreed on, and else behind the first's`(
    rings: RingFormat
  ) async throws {
    let one = try await Self.open(rings)
    #expect(one.side.events.contains(.attach(queue: 2)))
    #expect(await one.side.performControl { _ in true } == true)
    try await one.closeAndCheck()
    let two = try await Self.open(rings, pairs: 4, asked: 2)
    #expect(two.side.events.filter { if case .attach = $0 { true } else { false } }.last == .attach(queue: 8))
    try await two.closeAndCheck()
    // The number of pairs says nothing where MQ was not agreed on.
    let other = try await Lying(Self.configuration(pairs: 4), rings: rings)
    #expect(other.side.events.filter { if case .attach = $0 { true } else { false } }.last == .attach(queue: 2))
    try await other.closeAndCheck()
  }

  @Test func `CTRL_VQ and what needs it are accepted only where the device serves it`() async throws {
    var configuration = Self.configuration(pairs: 2, mq: true)
    configuration.pairSwitching = .transport
    let lying = try await Lying(configuration)
    for case .setFeatures(let set) in lying.side.events {
      #expect(set.isDisjoint(with: [.ctrlVQ, .ctrlRX, .ctrlVLAN, .ctrlMACAddress, .guestAnnounce]))
    }
    #expect(!lying.side.events.contains(.attach(queue: 4)))
    #expect(
      await code { try await lying.device.setReceiveMode(.addressed) } == .unsupported)
    try await lying.closeAndCheck()
  }

  @Test func `CTRL_VLAN is accepted only when asked for, and then it must be there with what it needs`() async throws {
    var options = VirtioNetDriver.Options()
    let lying = try await Self.open()
    for case .setFeatures(let set) in lying.side.events { #expect(!set.contains(.ctrlVLAN)) }
    #expect(await code { try await lying.device.addVLAN(7) } == .unsupported)
    try await lying.closeAndCheck()
    options.vlanFilter = true
    let filtering = try await Self.open(options: options)
    for case .setFeatures(let set) in filtering.side.events { #expect(set.contains(.ctrlVLAN)) }
    try await filtering.closeAndCheck()
    for missing: FeatureSet in [.ctrlVLAN, .ctrlVQ] {
      var configuration = Self.configuration()
      configuration.features.remove(missing)
      await #expect {
        _ = try await Lying(configuration, options: options)
      } throws: { ($0 as? NetworkDeviceError)?.code == .unsupported }
    }
  }

  @Test func `a device that offers a control queue and has no room for it is refused, in words`() async throws {
    var configuration = Self.configuration()
    configuration.maximumQueues = 2
    await #expect {
      _ = try await Lying(configuration)
    } throws: { ($0 as? NetworkDeviceError)?.code == .unsupported }
    configuration.maximumQueues = 3
    try await Lying(configuration).closeAndCheck()
    configuration.maximumQueueSize = 2
    await #expect {
      _ = try await Lying(configuration, queueSize: 2)
    } throws: { ($0 as? NetworkDeviceError)?.code == .unsupported }
  }

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 23: the pairs are asked for when receive rings are full, and before anybody sends`(
    rings: RingFormat
  ) async throws {
    let lying = try await Self.open(rings, pairs: 4, asked: 3)
    #expect(await Self.commands(lying) == [.queuePairs(3)])
    #expect(!lying.side.events.contains { if case .misplacedKick = $0 { true } else { false } })
    for pair in 0..<3 { #expect(await lying.side.perform(pair: pair) { $0.receive.held.count } == 16) }
    try await lying.closeAndCheck()
    // One pair is what a device serves unasked.
    let one = try await Self.open(rings, pairs: 4, asked: 1)
    #expect(await Self.commands(one) == [])
    try await one.closeAndCheck()
  }

  @Test(arguments: [LyingControl.Answer.byte(1), .silence, .length(0)])
  func `Driver rule 23: pairs that the device refuses, or says nothing about, are a typed error of open`(
    answer: LyingControl.Answer
  ) async throws {
    let side = LyingDevice(Self.configuration(pairs: 4, mq: true))
    side.firstAnswer = answer
    var options = VirtioNetDriver.Options()
    options.controlTimeout = .milliseconds(20)
    let expected: [LyingControl.Answer: NetworkDeviceError.Code] = [
      .byte(1): .unsupported, .silence: .timedOut, .length(0): .broken,
    ]
    let pool = try PacketPool(.init(slots: 512, hugePages: false))
    await #expect {
      _ = try await Lying.open(side, options, pool, 16, 4)
    } throws: { ($0 as? NetworkDeviceError)?.code == expected[answer] }
    try await eventually("every buffer is back") { pool.free == 512 }
  }

  // MARK: Commands

  @Test(arguments: [RingFormat.split, .packed])
  func `each call is the commands of the text, and only what has changed`(rings: RingFormat) async throws {
    var options = VirtioNetDriver.Options()
    options.vlanFilter = true
    let lying = try await Self.open(rings, options: options)
    let device = lying.device
    try await device.setReceiveMode(.addressed)
    var mode = ReceiveMode.addressed
    mode.allMulticast = true
    mode.noBroadcast = true
    try await device.setReceiveMode(mode)
    try await device.setReceiveAddresses(unicast: [Self.station], multicast: [Self.group])
    try await device.setHardwareAddress(Self.station)
    try await device.addVLAN(7)
    try await device.removeVLAN(7)
    try await device.acknowledgeAnnouncement()
    let all = NetControlCommand.ReceiveSwitch.allCases
    #expect(
      await Self.commands(lying)
        == all.map { .receive($0, false) } + [
          .receive(.allMulticast, true), .receive(.noBroadcast, true),
          .addressTable(unicast: [Self.station], multicast: [Self.group]), .address(Self.station),
          .vlan(7, isAdded: true), .vlan(7, isAdded: false), .announced,
        ])
    #expect(await lying.side.performControl { $0.mostAtOnce } == 1)
    try await lying.closeAndCheck()
  }

  @Test func `what no device can do is refused before it is asked`() async throws {
    var options = VirtioNetDriver.Options()
    options.vlanFilter = true
    let lying = try await Self.open(options: options)
    let device = lying.device
    let wrong: [() async throws -> Void] = [
      { try await device.setHardwareAddress(.zero) },
      { try await device.setHardwareAddress(Self.group) },
      { try await device.setReceiveAddresses(unicast: [Self.group], multicast: []) },
      { try await device.setReceiveAddresses(unicast: [], multicast: [Self.station]) },
      { try await device.addVLAN(4096) },
      { try await device.removeVLAN(65_535) },
      {
        try await device.setReceiveAddresses(
          unicast: [MACAddress](repeating: Self.station, count: 100_000), multicast: [])
      },
    ]
    for call in wrong { #expect(await code(call) == .invalidConfiguration) }
    #expect(await Self.commands(lying) == [])
    try await device.addVLAN(1)
    try await lying.closeAndCheck()
  }

  @Test func `a switch that the device does not know is off there, and turning it on is an error`() async throws {
    var configuration = Self.configuration()
    configuration.features.remove(.ctrlRXExtra)
    let lying = try await Lying(configuration)
    try await lying.device.setReceiveMode(.addressed)
    #expect(await Self.commands(lying) == [.receive(.promiscuous, false), .receive(.allMulticast, false)])
    var mode = ReceiveMode.addressed
    mode.noBroadcast = true
    let extra = mode
    #expect(
      await code { try await lying.device.setReceiveMode(extra) } == .unsupported)
    #expect(await Self.commands(lying).count == 2)
    try await lying.closeAndCheck()
  }

  @Test func `many tasks may ask at once: the device sees one command after the other`() async throws {
    let lying = try await Self.open()
    await withTaskGroup(of: NetworkDeviceError.Code?.self) { group in
      for number in 0..<100 {
        group.addTask {
          await code {
            try await lying.device.setHardwareAddress(MACAddress(2, 0, 0, 0, 1, UInt8(number)))
          }
        }
      }
      for await result in group { #expect(result == nil) }
    }
    #expect(await Self.commands(lying).count == 100)
    #expect(await lying.side.performControl { $0.mostAtOnce } == 1)
    try await lying.closeAndCheck()
  }

  // MARK: Announcements

  @Test func `Driver rule 25: a link that goes down and a wish for an announcement come by one interrupt`() async throws
  {
    let lying = try await Self.open()
    let device = lying.device
    let requests = Counter()
    let listening = Task { for await _ in device.announcementRequests { await requests.add() } }
    lying.side.changeConfiguration(to: LyingDevice.Space.bytes(status: 2))
    try await eventually("the wish is heard") { await requests.count == 1 }
    let isUp = device.isLinkUp
    #expect(!isUp)
    // The same wish again is no news; who begins to listen hears it.
    lying.side.changeConfiguration(to: LyingDevice.Space.bytes(status: 3))
    try await eventually("the link is up") { device.isLinkUp }
    #expect(await requests.count == 1)
    var late = device.announcementRequests.makeAsyncIterator()
    #expect(await late.next() != nil)
    try await device.acknowledgeAnnouncement()
    #expect(await Self.commands(lying) == [.announced])
    lying.side.changeConfiguration(to: LyingDevice.Space.bytes(status: 1))
    lying.side.changeConfiguration(to: LyingDevice.Space.bytes(status: 3))
    try await eventually("the next wish is heard") { await requests.count == 2 }
    try await lying.closeAndCheck()
    await listening.value
    // The second wish, and the end.
    #expect(await late.next() != nil)
    #expect(await late.next() == nil)
  }

  private actor Counter {
    private(set) var count = 0
    func add() { count += 1 }
  }
}
