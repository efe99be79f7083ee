import Foundation
import Glibc
import LibeventConcurrency
import Logging
import NetdevDevices
import NetdevTesting
import Synchronization
import TestSupport
import Testing
import Virtio
import VirtioNet

@testable import Netdev

/// The control plane in the log: each step is there, at the level that its reader expects, with what is needed to follow it.
@Suite(.serialized, .timeLimit(.minutes(3))) struct LoggingTests {
  private func open(
    _ side: LyingDevice, _ log: RecordedLog, reset: Duration = .seconds(5),
    change: (inout NetworkDevice.Configuration) -> Void = { _ in }
  ) async throws -> NetworkDevice {
    var settings = NetworkDevice.Configuration()
    settings.queueSize = 16
    settings.resetTimeout = reset
    settings.logger = log.logger
    change(&settings)
    return try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: side, logger: log.logger), configuration: settings)
  }

  @Test func `every step from opening to closing is there, at debug and no higher`() async throws {
    let log = RecordedLog()
    let device = try await open(LyingDevice(), log)
    try await device.close()
    let steps = [
      "features", "agreed with the device", "the device", "the device knows the pool", "made a queue pair", "activated",
      "device open", "closing", "reset", "shut down", "device closed",
    ]
    #expect(log.messages == steps)
    #expect(log.all.allSatisfy { $0.level == .debug })
    let features = try #require(log.first("features"))
    #expect(features.metadata["accepted"]?.contains("version1") == true, "\(features)")
    #expect(features.metadata["offered"]?.isEmpty == false)
    let found = try #require(log.first("the device"))
    #expect(found.metadata["queueSize"] == "16" && found.metadata["queuePairs"] == "1")
    let name = device.information.name
    for record in log.all { #expect(record.metadata["device"] == name, "\(record)") }
    for step in ["activated", "reset"] { #expect(log.first(step)?.metadata["took"] != nil) }
  }

  @Test func `a step of opening that fails is named, with the error`() async throws {
    let log = RecordedLog()
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.version1)
    let side = LyingDevice(configuration)
    await #expect(throws: NetworkDeviceError.self) { try await open(side, log) }
    let failed = try #require(log.first("agreed with the device failed"))
    #expect(failed.metadata["error"]?.contains("VERSION_1") == true)
    // The error is thrown: whoever opens decides how loud it is.
    #expect(log.all.allSatisfy { $0.level == .debug })
    #expect(log.messages.suffix(2) == ["shut down", "device closed"])
  }

  @Test func `a queue that breaks is an error, once, with its cause`() async throws {
    let log = RecordedLog()
    let side = LyingDevice()
    let device = try await open(side, log)
    // A used ring is looked at while something is in flight.
    try await device.queues[0].submit(Packet(copying: numbered(1), in: device.pool))
    try await eventually("it is published") { await side.perform { $0.transmit.held.count } == 1 }
    await side.perform { pair in
      pair.transmit.show([(id: 9999, length: 0)])
      pair.interrupt()
    }
    await #expect(throws: NetworkDeviceError.self) { try await device.queues[0].closed() }
    try? await device.close()
    let errors = log.all.filter { $0.level >= .warning }
    #expect(errors.map { $0.message } == ["the device ends"])
    #expect(errors.first?.level == .error)
    #expect(errors.first?.metadata["cause"]?.contains("broken") == true)
    #expect(errors.first?.metadata["device"] == device.information.name)
  }

  @Test func `a lost device: the link is a notice, each reason for waiting too, its quarantine a warning`() async throws
  {
    let log = RecordedLog()
    var configuration = LyingDevice.Configuration()
    configuration.recovery = VirtioRecovery()
    configuration.recovery?.firstDelay = .milliseconds(1)
    let side = LyingDevice(configuration)
    let device = try await open(side, log)
    let gone = Atomic<Bool>(false)
    side.isThere = false
    side.lose(isGone: { gone.load(ordering: .acquiring) })
    try await eventually("it is looked for") { log.first("the device is not back yet") != nil }
    side.isThere = true
    try await eventually("it is back") { log.first("link up") != nil }
    #expect(log.first("link down")?.level == .notice)
    #expect(log.first("link down")?.metadata["cause"]?.isEmpty == false)
    #expect(log.first("link up")?.level == .notice)
    #expect(log.first("the device is lost")?.level == .debug)
    #expect(log.first("the device is not back yet")?.level == .notice)
    #expect(log.first("the device is not back yet")?.metadata["error"]?.isEmpty == false)
    #expect(log.first("the device is back")?.level == .debug)
    let kept = try #require(log.all.first { $0.message.contains("quarantined until") })
    #expect(kept.level == .warning)
    #expect(kept.metadata["buffers"] == "16")
    gone.store(true, ordering: .releasing)
    side.requestAttention()
    try await eventually("the end of the quarantine is told") {
      log.first("the lost device is gone, its quarantine is over") != nil
    }
    try await device.close()
  }

  @Test(arguments: [false, true])
  func `closing while a lost device lives is a warning with the buffers that the pool has lost`(
    _ isGoneAtEnd: Bool
  ) async throws {
    let log = RecordedLog()
    var configuration = LyingDevice.Configuration()
    configuration.recovery = VirtioRecovery()
    configuration.recovery?.firstDelay = .milliseconds(1)
    let side = LyingDevice(configuration)
    let device = try await open(side, log)
    let gone = Atomic<Bool>(false)
    side.lose(isGone: { gone.load(ordering: .acquiring) })
    try await eventually("it is back") { log.all.contains { $0.message.contains("quarantined until") } }
    let slots = device.pool.configuration.slots
    gone.store(isGoneAtEnd, ordering: .releasing)
    try await device.close()
    let told = log.all.filter { $0.message.contains("the pool does not have them back") }
    #expect(told.map { $0.level } == (isGoneAtEnd ? [] : [.warning]))
    #expect(told.allSatisfy { $0.metadata["buffers"] == "16" && $0.metadata["losses"] == "1" })
    #expect(device.pool.free == slots - (isGoneAtEnd ? 0 : 16))
  }

  @Test func `a reset that is not confirmed is an error with what it costs`() async throws {
    let log = RecordedLog()
    let side = LyingDevice()
    let device = try await open(side, log, reset: .milliseconds(10))
    side.resetBehaviour = .never
    await #expect(throws: NetworkDeviceError.self) { try await device.close() }
    #expect(log.first("reset failed")?.level == .debug)
    let record = try #require(log.first("reset not confirmed; memory is quarantined"))
    #expect(record.level == .error)
    #expect(record.metadata["error"]?.contains("resetNotConfirmed") == true)
  }

  /// Invariant 13.
  @Test func `a job that holds a loop is a warning with the loop's name`() async throws {
    let log = RecordedLog()
    let side = LyingDevice()
    let device = try await open(side, log) { $0.stallBound = .milliseconds(20) }
    let queue = device.queues[0]
    await LoopScope(queue.loop).run { _ in
      let end = ContinuousClock.now + .milliseconds(80)
      while ContinuousClock.now < end {}
    }
    try await eventually("it is counted and then logged") {
      queue.statistics.loopStalls > 0 && log.first("a job held the loop") != nil
    }
    let record = try #require(log.first("a job held the loop"))
    #expect(record.level == .warning)
    #expect(record.metadata["loop"] == "\(device.information.name)/0")
    #expect(record.metadata["length"]?.isEmpty == false)
    try await device.close()
  }

  private enum Work {
    @TaskLocal static var number = 0
  }

  @Test func `what a task provides for the log is in its lines, which another thread writes`() {
    let log = RecordedLog()
    var logger = log.logger
    logger.handler.metadataProvider = Logger.MetadataProvider { ["work": "\(Work.number)", "both": "provided"] }
    let aside = logger.aside
    Work.$number.withValue(7) {
      aside.info("at work", metadata: ["both": "said", "own": "1"])
      aside.info("still at work")
    }
    #expect(log.first("at work")?.metadata == ["work": "7", "both": "said", "own": "1"])
    #expect(log.first("still at work")?.metadata == ["work": "7", "both": "provided"])
  }

  @Test func `whoever has closed a device finds its last line written, if the output takes less than 100 ms for it`()
    async throws
  {
    let rounds = 20
    var finished = 0
    for _ in 0..<rounds {
      let log = RecordedLog(label: "slow-\(UInt64.random(in: 0...UInt64.max))", pause: .milliseconds(5))
      let device = try await open(LyingDevice(), log)
      try await device.close()
      if log.lastWritten == "device closed" { finished += 1 }
    }
    // A busy machine may hold up the thread that writes.
    #expect(finished > rounds / 2)
  }

  // MARK: - An output that takes nothing

  /// A log whose output takes nothing until it is told to. Of a label of its own: nobody else's lines wait here.
  private static func heldLog() -> RecordedLog {
    RecordedLog(label: "held-\(UInt64.random(in: 0...UInt64.max))", isHeld: true)
  }

  @Test func `a log whose output takes nothing holds neither traffic nor the end`() async throws {
    let held = Self.heldLog()
    defer { held.letGo() }
    var settings = NetworkDevice.Configuration()
    settings.logger = held.logger
    let device = try await NetworkDevice.open("loopback:", configuration: settings)
    for _ in 0..<100 { try await device.queues[0].send(Packet(count: 60, in: device.pool)) }
    try await device.close()
    #expect(held.isEmpty)
    held.letGo()
    #expect(held.messages.last == "device closed")
  }

  @Test func `devices that close while the log's output takes nothing leave no loop behind`() async throws {
    let held = Self.heldLog()
    defer { held.letGo() }
    var settings = NetworkDevice.Configuration()
    settings.logger = held.logger
    weak var loop: LoopExecutor?
    for _ in 0..<3 {
      let device = try await NetworkDevice.open("loopback:", configuration: settings)
      loop = device.life.loop
      try await device.close()
    }
    try await eventually("the last one's control loop is gone") { loop == nil }
    #expect(held.isEmpty)
  }

  @Test func `an output that takes nothing silences no other label`() {
    let held = Self.heldLog()
    defer { held.letGo() }
    held.logger.aside.info("waits")
    let log = RecordedLog()
    log.logger.aside.info("goes on")
    while log.isEmpty { usleep(1000) }
    #expect(held.isEmpty)
  }

  @Test func `however many labels wait, few threads do`() async throws {
    let held = Self.heldLog()
    defer { held.letGo() }
    let loggers = (0..<3 * LogLines.mostThreads).map { held.logger(level: .trace, label: "\(held.label)-\($0)").aside }
    for (number, logger) in loggers.enumerated() { logger.info("waits \(number)") }
    let threads = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")
      .count { (try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)) == "netdev-log\n" }
    #expect(threads <= LogLines.mostThreads)
    held.letGo()
    let lines = Set(held.messages)
    #expect(lines == Set(loggers.indices.map { "waits \($0)" }), "none is lost")
  }

  @Test func `lines that find no room are counted, and the others are in order`() {
    let held = Self.heldLog()
    let logger = held.logger.aside
    let more = 500
    for number in 0..<LogLines.most + more { logger.info("\(number)") }
    held.letGo()
    LogLines.finish([held.label])
    logger.info("and on")
    #expect(held.messages.last == "and on")
    // Told once, and not with each line from then on.
    logger.info("and further on")
    #expect(held.messages.last == "and further on")
    let lines = held.all.dropLast()
    #expect(lines.count == LogLines.most + 2)
    let numbers = lines.compactMap { Int($0.message) }
    #expect(numbers == Array(0..<numbers.count))
    #expect(lines.last?.message == "and on")
    let lost = lines.dropLast().last
    #expect(lost?.message == "lines of the log were lost: its output took none")
    #expect(lost?.metadata["lines"] == "\(LogLines.most + more - numbers.count)")
  }
}
