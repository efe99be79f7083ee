import CNetdevSystem
import Foundation
import Glibc
import LibeventConcurrency
import Logging
import Netdev
import TestSupport
import Testing
import Virtio
import VirtioNet

@testable import VhostUser

/// Events that meet in the middle of something else: what was begun is ended, and nothing of one device's life reaches another.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct CrossingTests {
  /// The messages of each connection.
  private func connections(_ messages: [FrontendMessage]) -> [[FrontendMessage]] {
    messages.reduce(into: []) { connections, message in
      if message.code == .setOwner { connections.append([]) }
      if connections.isEmpty { connections.append([]) }
      connections[connections.count - 1].append(message)
    }
  }

  @Test(arguments: [ScriptedBackend.Fault.close, .answerThenClose])
  func `DRIVER_OK that crosses the loss of a recovery's connection starts nothing on the next one`(
    _ fault: ScriptedBackend.Fault
  ) async throws {
    let backend = ScriptedBackend()
    let device = try await ReconnectTests.opening(backend).open()
    let honest = backend.messages
    let statuses = honest.count { $0.code == .setStatus }
    for _ in 0..<5 {
      let breaches = backend.breaches
      backend.breach(.init(code: .setStatus, occurrence: statuses - 1, fault: fault))
      backend.hangUp()
      // Again and again, and each time the next connection is under way already.
      try await eventually("DRIVER_OK is lost") { backend.breaches >= breaches + 3 }
      backend.breach(nil)
      let present = backend.connections
      try await eventually("it is back") { device.isLinkUp && backend.connections >= present }
    }
    // DRIVER_OK is the last status of a connection, and all rings have been set up on that before.
    let driverOK = FrontendMessage.setStatus(DeviceStatus([.acknowledge, .driver, .featuresOK, .driverOK]).rawValue)
    for messages in connections(backend.messages) {
      guard let position = messages.firstIndex(of: driverOK) else { continue }
      #expect(messages[..<position].map { $0.code } == honest.prefix(position).map { $0.code })
      #expect(messages.count { $0 == driverOK } == 1)
    }
    try? await device.close()
    #expect(backend.complaints == [])
  }

  @Test(arguments: [false, true])
  func `a configuration change that crosses the end of a queue leaves one end, with the queue's cause`(
    _ isAnswered: Bool
  ) async throws {
    // Where the end is not confirmed, the pool is kept.
    let pool = try PacketPool(.init(slots: 1024, hugePages: false))
    let before = openDescriptors()
    for round in 0..<10 { try await Self.cross(isAnswered, queueFirst: round.isMultiple(of: 2), pool) }
    try await eventually("nothing is left") { openDescriptors() <= before }
  }

  /// In a function of its own: the device's loops end when it returns.
  private static func cross(_ isAnswered: Bool, queueFirst: Bool, _ pool: PacketPool) async throws {
    let backend = ScriptedBackend(ConfigChangeTests.offer(status: 1))
    let device = try await Opening(backend, pool: pool).open()
    if !isAnswered { backend.breach(.init(code: .getConfig, occurrence: 1, fault: .silence)) }
    let queue = device.queues[0]
    let ended = Task { try await queue.closed() }
    backend.offer(ConfigChangeTests.offer(status: 0))
    if queueFirst { backend.reportError() }
    #expect(backend.request(2, needsReply: false) || queueFirst)
    if !queueFirst { backend.reportError() }
    let error = await #expect(throws: NetworkDeviceError.self) { try await ended.value }
    #expect(error?.code == .broken)
    #expect(error?.offered.contains("reports an error") == true, "\(String(describing: error))")
    do throws(NetworkDeviceError) { try await device.close() } catch { #expect(error.code == .resetNotConfirmed) }
    backend.end()
  }

  @Test(arguments: [(slots: 128, losses: 7), (4096, 65)])
  func `a living back-end that disconnects again and again is an end that says why, before the rings run dry`(
    _ slots: Int, _ losses: Int
  ) async throws {
    let backend = ScriptedBackend()
    let pool = try PacketPool(.init(slots: slots, hugePages: false))
    let device = try await ReconnectTests.opening(backend, pool: pool).open()
    for times in 1..<losses {
      backend.hangUp()
      try await ReconnectTests.waitUntilBack(device, times: UInt64(times))
    }
    backend.hangUp()
    let error = await #expect(throws: NetworkDeviceError.self) { try await device.queues[0].closed() }
    #expect(error?.code == .resetNotConfirmed)
    #expect(error?.offered.contains("of \(losses - 1) losses, are in quarantine") == true)
    #expect(error?.advice.contains("end that process") == true)
    try? await device.close()
  }
}

/// What a back-end says on a channel of its own, and what is said when that is over.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(2))) struct ChannelEndTests {
  private static let words = "channel is over: what it says of its link is not heard"

  @Test func `a channel that ends alone is a warning, once, and the device goes on`() async throws {
    let backend = ScriptedBackend()
    let log = RecordedLog()
    var opening = Opening(backend)
    opening.options.logger = log.logger(level: .warning)
    let device = try await opening.open()
    backend.closeChannel()
    try await eventually("it is told") { log.lines.contains { $0.contains(Self.words) } }
    #expect(log.lines.count { $0.contains(Self.words) } == 1)
    #expect(device.isLinkUp)
    try await device.close()
  }

  @Test func `a channel that ends with its connection is no news`() async throws {
    let backend = ScriptedBackend()
    let log = RecordedLog()
    var opening = ReconnectTests.opening(backend)
    opening.options.logger = log.logger(level: .debug)
    let device = try await opening.open()
    backend.closeChannel()
    try await eventually("it is over") { log.lines.contains { $0.contains("back-end channel over") } }
    backend.hangUp()
    try await ReconnectTests.waitUntilBack(device, times: 1)
    // As long as it would have taken, by the loop's clock.
    await device.queues[0].loop.sleep(for: .milliseconds(1500))
    #expect(!log.lines.contains { $0.contains(Self.words) })
    try? await device.close()
  }
}

/// Descriptors run out while a back-end knocks.
@Suite(.timeLimit(.minutes(2))) struct ScarcityTests {
  /// From now on no descriptor is to be had, or as many as before.
  private static func limitDescriptors(_ isScarce: Bool) {
    let lowest = dup(0)
    close(lowest)
    var limit = rlimit(rlim_cur: isScarce ? rlim_t(lowest) : 1024, rlim_max: 4096)
    guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(20) }
  }

  @Test func `without a descriptor for it a back-end is left outside, without a spin, and let in when there is one`()
    async
  {
    await #expect(processExitsWith: .success) {
      let loop = try LoopExecutor(name: "control")
      let log = RecordedLog()
      var options = VhostUserTransport.Options(path: SocketFiles.makePath(), role: .listen)
      options.connectTimeout = .seconds(600)
      options.logger = log.logger(level: .debug)
      var configuration = NetworkDevice.Configuration()
      configuration.logger.logLevel = .critical
      configuration.controlLoop = loop
      configuration.queueSize = 16
      let driver = VirtioNetDriver(transport: try VhostUserTransport(options))
      let opened = Task { [configuration] in
        try await NetworkDevice.open(driver: driver, configuration: configuration)
      }
      try await eventually("it listens") { log.lines.contains { $0.contains("waiting for the vhost-user back-end") } }
      // Who knocks has its descriptor already.
      let knocker = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: options.path.utf8) }
      ScarcityTests.limitDescriptors(true)
      let result = unsafe withUnsafePointer(to: &address) { address in
        unsafe connect(
          knocker, UnsafeRawPointer(address).assumingMemoryBound(to: sockaddr.self),
          socklen_t(MemoryLayout<sockaddr_un>.size))
      }
      guard result == 0 else { exit(2) }
      // Not by `Task.sleep`: Dispatch ends the process when there is no descriptor for a timer of its own.
      var patience = 60_000
      while patience > 0, log.lines.count(where: { $0.contains("not accepted") && $0.contains("24") }) < 3 {
        usleep(1000)
        patience -= 1
      }
      guard patience > 0 else { exit(5) }
      let before = loop.statistics
      usleep(300_000)
      let after = loop.statistics
      guard after.turns - before.turns < 100, after.idleTurns < 100 else { exit(3) }
      ScarcityTests.limitDescriptors(false)
      // It was let in once there was room, and was a stranger.
      close(knocker)
      let backend = ScriptedBackend(isClient: true, path: options.path)
      let device = try await opened.value
      guard device.isLinkUp else { exit(4) }
      try? await device.close()
      backend.end()
      // At once: a search for leaks at the end would take what is still alive for lost.
      _exit(EXIT_SUCCESS)
    }
  }
}
