import LibeventConcurrency
import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import Virtio
import VirtioNet

// What the device, or its end, does to commands that are under way.
extension VirtioDriverTestsControl {
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
}
