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
  private static func configuration(pairs: UInt16 = 1, mq: Bool = false) -> LyingDevice.Configuration {
    var configuration = LyingDevice.Configuration()
    configuration.features.formUnion([
      .ctrlVQ, .ctrlRX, .ctrlRXExtra, .ctrlVLAN, .ctrlMACAddress, .guestAnnounce,
    ])
    if mq { configuration.features.insert(.mq) }
    configuration.space = LyingDevice.Space.bytes(pairs: pairs)
    configuration.pairSwitching = .controlQueue
    return configuration
  }

  private static func open(
    _ rings: RingFormat = .split, pairs: UInt16 = 1, asked: Int = 1, options: VirtioNetDriver.Options = .init(),
    recovery: VirtioRecovery? = nil
  ) async throws -> Lying {
    var configuration = configuration(pairs: pairs, mq: pairs > 1)
    configuration.recovery = recovery
    return try await Lying(configuration, options: options, queuePairs: asked, rings: rings)
  }

  private static func commands(_ lying: Lying) async -> [NetControlCommand?] {
    await lying.side.performControl { $0.understood } ?? []
  }

  private func code(_ body: () async throws -> Void) async -> NetworkDeviceError.Code? {
    do {
      try await body()
      return nil
    } catch {
      return (error as? NetworkDeviceError)?.code
    }
  }

  private static let station = MACAddress(2, 0, 0, 0, 0, 9)
  private static let group = MACAddress(1, 0, 0x5e, 0, 0, 9)

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

  // MARK: Devices that do not answer as they should

  @Test(arguments: [RingFormat.split, .packed], [1, 2, 255] as [UInt8])
  func `Driver rule 24: a command that is refused is an error of its caller, and the device goes on`(
    rings: RingFormat, byte: UInt8
  ) async throws {
    let lying = try await Self.open(rings)
    await lying.side.performControl { $0.answer = .byte(byte) }
    #expect(
      await code { try await lying.device.setReceiveMode(.addressed) } == .unsupported)
    await lying.side.performControl { $0.answer = .acknowledge }
    // What came of the first attempt is not known: all is said again.
    try await lying.device.setReceiveMode(.addressed)
    #expect(await Self.commands(lying).count == 7)
    try await lying.closeAndCheck()
  }

  @Test func `Driver rule 24: the answer is preset, so that a device which writes none has refused`() async throws {
    let lying = try await Self.open()
    await lying.side.performControl { $0.answer = .silence }
    let other = Task {
      await code { try await lying.device.acknowledgeAnnouncement() }
    }
    try await eventually("it is there") { await lying.side.performControl { $0.queue.held.count } == 1 }
    let preset = await lying.side.performControl { control in
      let room = control.queue.chain(control.queue.held[0]).last { $0.isWritable }
      return room.map { control.queue.ring.bytes($0) }
    }
    #expect((preset ?? nil) == [1])
    // Used, with one byte written that nobody wrote.
    await lying.side.performControl { $0.answerLate(.silence) }
    #expect(await other.value == .unsupported)
    try await lying.closeAndCheck()
  }

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 24: a device that never answers holds up nothing but its caller, for a time of the loop's clock`(
    rings: RingFormat
  ) async throws {
    var configuration = Self.configuration()
    var options = VirtioNetDriver.Options()
    if rings == .packed {
      configuration.features.insert(.ringPacked)
      options.packedRings = true
    }
    let hand = HandTurnedLoop()
    let side = LyingDevice(configuration)
    var settings = hand.configuration
    settings.pool = try PacketPool(.init(slots: 512, hugePages: false))
    settings.queueSize = 16
    let device = try await hand.run { [settings, options] in
      try await NetworkDevice.open(driver: VirtioNetDriver(transport: side, options: options), configuration: settings)
    }
    try await hand.run { await side.performControl { $0.answer = .silence } }
    let call = Outcome()
    Task { await call.record { try await device.acknowledgeAnnouncement() } }
    try await eventually("the command is there") {
      try await hand.run { await side.performControl { $0.queue.held.count } } == 1
    }
    // Frames go on.
    try await hand.run { try await device.queues[0].submit(Packet(copying: numbered(1), in: device.pool)) }
    hand.settle()
    #expect(try await hand.run { await side.perform { $0.transmit.held.count } } == 1)
    hand.advance(by: .milliseconds(1999))
    #expect(call.finished == 0)
    hand.advance(by: .milliseconds(1))
    try await eventually("the caller is told") {
      hand.settle()
      return call.finished == 1
    }
    #expect(call.errors.map { $0.code } == [.timedOut])
    // The next one waits for the answer to the first, no longer than its own time.
    let second = Outcome()
    Task { await second.record { try await device.acknowledgeAnnouncement() } }
    try await eventually("the second caller is told") {
      hand.advance(by: .milliseconds(100))
      return second.finished == 1
    }
    #expect(second.errors.map { $0.code } == [.timedOut])
    #expect(try await hand.run { await side.performControl { $0.commands.count } } == 1)
    // Answered late: it is nobody's answer, and the next command has its own.
    try await hand.run {
      await side.performControl { control in
        control.answerLate(.byte(1))
        control.answer = .acknowledge
      }
    }
    try await hand.run { try await device.acknowledgeAnnouncement() }
    #expect(try await hand.run { await side.performControl { $0.commands.count } } == 2)
    try await hand.run { try await device.close() }
  }

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 24: an answer that comes late is not taken for that of the next command`(
    rings: RingFormat
  ) async throws {
    var options = VirtioNetDriver.Options()
    options.controlTimeout = .milliseconds(20)
    let lying = try await Self.open(rings, options: options)
    await lying.side.performControl { $0.answer = .silence }
    #expect(
      await code { try await lying.device.acknowledgeAnnouncement() } == .timedOut)
    await lying.side.performControl { control in
      control.answerLate(.byte(1))
      control.answer = .acknowledge
    }
    try await lying.device.acknowledgeAnnouncement()
    await lying.side.performControl { $0.answer = .silence }
    #expect(
      await code { try await lying.device.acknowledgeAnnouncement() } == .timedOut)
    await lying.side.performControl { control in
      control.answerLate(.acknowledge)
      control.answer = .byte(1)
    }
    #expect(
      await code { try await lying.device.acknowledgeAnnouncement() } == .unsupported)
    #expect(await lying.side.performControl { $0.mostAtOnce } == 1)
    try await lying.closeAndCheck()
  }

  @Test(
    arguments: [RingFormat.split, .packed],
    [LyingControl.Answer.length(0), .length(2), .length(.max), .stranger])
  func
    `Driver rule 16: a device that breaks the control queue is broken, its callers are told, and it can be opened again`(
      rings: RingFormat, answer: LyingControl.Answer
    ) async throws
  {
    let lying = try await Self.open(rings)
    await lying.side.performControl { $0.answer = answer }
    let run = Outcome()
    Task { await run.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
    let code = await code { try await lying.device.setReceiveMode(.addressed) }
    #expect(code == .broken)
    try await eventually("run ends") { run.finished == 1 }
    #expect(run.errors.map { $0.code } == [.broken])
    try await eventually("every buffer is back") { lying.pool.free == lying.pool.configuration.slots }
    try await lying.checkReopening()
  }

  @Test func `NEEDS_RESET on the control queue ends the device, and interrupts for nothing are harmless`() async throws
  {
    let lying = try await Self.open()
    for _ in 0..<100 { await lying.side.performControl { $0.interrupt() } }
    try await lying.device.acknowledgeAnnouncement()
    let run = Outcome()
    Task { await run.record { try await lying.device.run { queue in for await _ in queue.packets {} } } }
    await lying.side.performControl { $0.needReset() }
    try await eventually("run ends") { run.finished == 1 }
    #expect(run.errors.map { $0.code } == [.broken])
  }

  // MARK: Ends meanwhile

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 27: close does not wait for an answer, and whoever does is told`(rings: RingFormat) async throws {
    let lying = try await Self.open(rings)
    await lying.side.performControl { $0.answer = .silence }
    let calls = (0..<3).map { _ in
      Task { await code { try await lying.device.acknowledgeAnnouncement() } }
    }
    try await eventually("it is there") { await lying.side.performControl { $0.queue.held.count } == 1 }
    try await lying.closeAndCheck()
    for call in calls { #expect(await call.value == .closed) }
    #expect(await code { try await lying.device.acknowledgeAnnouncement() } == .closed)
    #expect(lying.side.events.suffix(2) == [.reset, .shutDown])
  }

  @Test func `whoever is cancelled goes on at once, and what he asked for and had not begun is not asked for`()
    async throws
  {
    let lying = try await Self.open()
    await lying.side.performControl { $0.answer = .silence }
    let first = Task {
      await code { try await lying.device.acknowledgeAnnouncement() }
    }
    try await eventually("it is there") { await lying.side.performControl { $0.queue.held.count } == 1 }
    let second = Task {
      await code { try await lying.device.setHardwareAddress(Self.station) }
    }
    second.cancel()
    #expect(await second.value == .cancelled)
    first.cancel()
    #expect(await first.value == .cancelled)
    await lying.side.performControl { control in
      control.answerLate()
      control.answer = .acknowledge
    }
    try await lying.device.acknowledgeAnnouncement()
    #expect(await Self.commands(lying) == [.announced, .announced])
    try await lying.closeAndCheck()
  }

  @Test(arguments: [RingFormat.split, .packed])
  func `Driver rule 26: a device that comes back is told all that the lost one was`(rings: RingFormat) async throws {
    var recovery = VirtioRecovery()
    recovery.firstDelay = .milliseconds(1)
    recovery.longestDelay = .milliseconds(4)
    var options = VirtioNetDriver.Options()
    options.vlanFilter = true
    options.controlTimeout = .milliseconds(20)
    let lying = try await Self.open(rings, pairs: 2, asked: 2, options: options, recovery: recovery)
    let device = lying.device
    try await device.setReceiveMode(.addressed)
    try await device.setReceiveAddresses(unicast: [], multicast: [Self.group])
    try await device.setHardwareAddress(Self.station)
    for id: UInt16 in [9, 7, 8] { try await device.addVLAN(id) }
    try await device.removeVLAN(8)
    // One is on its way meanwhile: its caller is told, and it is not asked for again.
    await lying.side.performControl { $0.answer = .silence }
    let call = Task { await code { try await device.setReceiveMode(.promiscuous) } }
    try await eventually("it is there") { await lying.side.performControl { $0.queue.held.count } == 1 }
    call.cancel()
    #expect(await call.value == .cancelled)
    try await lying.loseAndRegain()
    #expect(
      await Self.commands(lying)
        == [
          .queuePairs(2), .addressTable(unicast: [], multicast: [Self.group]), .address(Self.station),
          .vlan(7, isAdded: true), .vlan(9, isAdded: true),
        ] + NetControlCommand.ReceiveSwitch.allCases.map { .receive($0, false) })
    try await device.addVLAN(8)
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
