import CNetdevSystem
import CTestSupport
import Glibc
import Netdev
import Synchronization
import TestSupport
import Testing
import VirtioNet

@testable import VhostUser

/// Every message of the handshake, of the recovery and of the end, met by every way a peer can behave badly: a typed end in its
/// time, and nothing left.
///
/// A question may take an hour here: whatever ends, ends by an answer, a hang-up, a cancellation or the reset's time-out.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(5))) struct HostilePeerSweepTests {
  static let faults: [ScriptedBackend.Fault] = [
    .silence, .close, .twice, .otherRequest, .answerThenClose, .errorThenAnswer, .flagsThenAnswer,
  ]

  /// One message of a conversation.
  struct Step: Sendable {
    let code: FrontendCode
    let occurrence: Int

    /// The messages of an honest life, from the first to the last.
    static func all(of messages: [FrontendMessage]) -> [Step] {
      var occurrences: [FrontendCode: Int] = [:]
      return messages.map { message in
        defer { occurrences[message.code, default: 0] += 1 }
        return Step(code: message.code, occurrence: occurrences[message.code, default: 0])
      }
    }
  }

  /// What a test starts with: a pool whose buffers are counted, and what this process holds.
  struct Ground {
    let pool: PacketPool
    let backend = ScriptedBackend()
    let (descriptors, mappings): (Int, Int)

    init() throws {
      pool = try PacketPool(.init(slots: 4096, hugePages: false))
      (descriptors, mappings) = (openDescriptors(), ringMappings())
    }

    func opening(requestTimeout: Duration = .seconds(3600)) -> Opening {
      var opening = ReconnectTests.opening(backend, pool: pool)
      opening.options.requestTimeout = requestTimeout
      return opening
    }

    /// The messages of opening and closing.
    func script() async throws -> (opening: [Step], closing: [Step]) {
      let device = try await opening().open()
      let opened = backend.messages.count
      try await device.close()
      let steps = Step.all(of: backend.messages)
      return (Array(steps.prefix(opened)), Array(steps.dropFirst(opened)))
    }

    /// Nothing is left: buffers that a peer may still write to are kept a ring at a time, and everything else is back.
    func check(_ what: String) async throws {
      backend.breach(nil)
      let kept = 4096 - pool.free
      #expect(kept % 16 == 0, "\(what): \(kept)")
      try await (try await opening().open()).close()
      #expect(4096 - pool.free == kept, "\(what)")
      try await eventually("\(what): descriptors are closed") { openDescriptors() <= descriptors }
      try await eventually("\(what): the rings' memory is gone") { ringMappings() <= mappings }
    }
  }

  @Test(arguments: faults) func `the handshake: each message`(_ fault: ScriptedBackend.Fault) async throws {
    let ground = try Ground()
    for step in try await ground.script().opening {
      ground.backend.breach(.init(code: step.code, occurrence: step.occurrence, fault: fault))
      let (before, opening) = (ground.backend.breaches, ground.opening())
      let opened = Task { try await opening.open() }
      try await eventually("\(fault) at \(step)") { ground.backend.breaches > before }
      // Who is silent is waited for until somebody loses patience.
      if fault == .silence { opened.cancel() }
      switch await opened.result {
      case .success(let device):
        ground.backend.breach(nil)
        await close(device)
      case .failure(let error):
        let code = (error as? NetworkDeviceError)?.code
        #expect(fault == .silence ? code == .cancelled : code == .broken, "\(fault) at \(step): \(error)")
      }
    }
    try await ground.check("\(fault)")
  }

  @Test(arguments: faults) func `the recovery: each message`(_ fault: ScriptedBackend.Fault) async throws {
    let ground = try Ground()
    for step in try await ground.script().opening {
      let device = try await ground.opening(requestTimeout: fault == .silence ? .milliseconds(500) : .seconds(3600))
        .open()
      let before = ground.backend.breaches
      ground.backend.breach(.init(code: step.code, occurrence: step.occurrence, fault: fault))
      ground.backend.hangUp()
      try await eventually("\(fault) at \(step)") { ground.backend.breaches > before }
      ground.backend.breach(nil)
      // It comes back, or it ends with a cause: an error that it signals is one.
      let end = Ending(of: device)
      try await eventually("\(fault) at \(step): it comes back or ends") {
        device.isLinkUp && device.queues[0].statistics.driver.recoveries > 0 || end.hasCome
      }
      await end.stop()
      await close(device)
    }
    try await ground.check("\(fault)")
  }

  /// Knows whether a device has ended by itself.
  private final class Ending: Sendable {
    private let task: Task<Void, Never>
    private let flag: Flag

    private final class Flag: Sendable {
      let isSet = Atomic<Bool>(false)
    }

    init(of device: NetworkDevice) {
      let (queue, flag) = (device.queues[0], Flag())
      self.flag = flag
      task = Task {
        do throws(NetworkDeviceError) {
          try await queue.closed()
        } catch {
          guard error.code != .cancelled else { return }
        }
        flag.isSet.store(true, ordering: .releasing)
      }
    }

    var hasCome: Bool { flag.isSet.load(ordering: .acquiring) }

    func stop() async {
      task.cancel()
      await task.value
    }
  }

  @Test(arguments: faults) func `the end: each message`(_ fault: ScriptedBackend.Fault) async throws {
    let ground = try Ground()
    for step in try await ground.script().closing {
      let device = try await ground.opening().open()
      ground.backend.breach(.init(code: step.code, occurrence: step.occurrence, fault: fault))
      await close(device)
      ground.backend.breach(nil)
    }
    try await ground.check("\(fault)")
  }

  private func close(_ device: NetworkDevice) async {
    do throws(NetworkDeviceError) {
      try await device.close()
    } catch {
      #expect(error.code == .resetNotConfirmed, "\(error)")
    }
  }

  @Test func `a configuration that is asked for and never comes does not hold the end`() async throws {
    let backend = ScriptedBackend(ConfigChangeTests.offer(status: 1))
    var opening = ReconnectTests.opening(backend)
    opening.options.requestTimeout = .seconds(3600)
    let device = try await opening.open()
    backend.breach(.init(code: .getConfig, occurrence: 1, fault: .silence))
    #expect(backend.request(2))
    try await eventually("it is asked for") { backend.breaches > 0 }
    await close(device)
  }

  @Test func `a back-end that hangs up right behind its last answer is noticed, and called again with growing pauses`()
    async throws
  {
    let backend = ScriptedBackend(breach: .init(code: .getFeatures, occurrence: 1, fault: .answerThenClose))
    var opening = ReconnectTests.opening(backend)
    opening.options.recovery?.firstDelay = .milliseconds(1)
    opening.options.recovery?.longestDelay = .seconds(3600)
    let device = try await opening.open()
    // Pauses of 1, 2, 4 … 128 ms: whoever calls at once has been there hundreds of times.
    let started = ContinuousClock.now
    try await eventually("it is called again") { backend.connections >= 8 }
    #expect(ContinuousClock.now - started >= .milliseconds(63))
    await close(device)
  }

  @Test func `strangers come and go while a back-end is awaited`() async throws {
    let strange = ScriptedBackend()
    strange.end()
    var opening = Opening(strange, role: .listen)
    opening.options.connectTimeout = .seconds(600)
    let opened = Task { [opening] in try await opening.open() }
    try await eventually("it listens") { fileExists(strange.path) }
    for bytes in [[], [0x47, 0x45, 0x54], [UInt8](repeating: 0xff, count: 64)] as [[UInt8]] {
      var stranger: CInt = -1
      // Bound, it may not listen yet.
      try await eventually("it is let in") {
        stranger = unsafe netdev_unix_connect(strange.path)
        return stranger >= 0
      }
      if !bytes.isEmpty { _ = unsafe netdev_unix_send(stranger, bytes, bytes.count, nil, 0) }
      Glibc.close(stranger)
    }
    let backend = ScriptedBackend(isClient: true, path: strange.path)
    let device = try await opened.value
    #expect(device.isLinkUp)
    try await device.close()
    backend.end()
  }

  @Test func `a listener that leaves does not take the name of its successor`() async throws {
    let strange = ScriptedBackend()
    strange.end()
    var opening = Opening(strange, role: .listen)
    opening.options.connectTimeout = .seconds(600)
    let opened = Task { [opening] in try await opening.open() }
    try await eventually("it listens") { fileExists(strange.path) }
    unsafe unlink(strange.path)
    var file = netdev_file()
    let successor = unsafe netdev_unix_listen(strange.path, &file)
    #expect(successor >= 0)
    opened.cancel()
    _ = await opened.result
    #expect(fileExists(strange.path))
    Glibc.close(successor)
    unsafe unlink(strange.path)
  }

  @Test func `a listener whose file cannot be looked at in one way knows it in another`() throws {
    let path = SocketFiles.makePath()
    var file = netdev_file()
    var listener: CInt = -1
    let opened = onThreadRefusing(test_call_newfstatat, EACCES) { listener = unsafe netdev_unix_listen(path, &file) }
    #expect(opened == 0)
    try #require(listener >= 0)
    #expect(fileExists(path))
    let closed = onThreadRefusing(test_call_newfstatat, EACCES) {
      unsafe netdev_unix_close_listener(listener, path, file)
    }
    #expect(closed == 0)
    #expect(!fileExists(path))
  }

  @Test func `a socket that nobody listens on is replaced, in whichever way its file can be looked at`() throws {
    let path = SocketFiles.makePath()
    var file = netdev_file()
    let stale = unsafe netdev_unix_listen(path, &file)
    try #require(stale >= 0)
    Glibc.close(stale)
    #expect(fileExists(path))
    var listener: CInt = -1
    let opened = onThreadRefusing(test_call_newfstatat, EACCES) { listener = unsafe netdev_unix_listen(path, &file) }
    #expect(opened == 0)
    try #require(listener >= 0)
    unsafe netdev_unix_close_listener(listener, path, file)
    #expect(!fileExists(path))
  }
}
