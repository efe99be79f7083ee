import Netdev
import TestSupport
import Testing

@testable import VhostUser

/// Back-ends that break the rules at every step: a typed error in time, nothing left open, and the next attempt works.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(10))) struct HostileBackendTests {
  @Test(arguments: ScriptedBackend.Fault.allCases)
  func `every step of the handshake survives it`(_ fault: ScriptedBackend.Fault) async throws {
    let pool = try PacketPool(.init(slots: 4096, slotSize: 2048, hugePages: false))
    let backend = ScriptedBackend()
    var opening = Opening(backend, pool: pool)
    try await (try await opening.open()).close()
    // What an honest handshake consists of; the last three messages are its end.
    let steps = backend.messages.map { $0.code }.dropLast(3)
    #expect(steps.count > 25)
    let before = openDescriptors()
    let mappings = ringMappings()
    let kick = try #require(backend.messages.firstIndex { $0.code == .setVringKick })
    if [.silence, .halfThenSilence].contains(fault) { opening.options.requestTimeout = .milliseconds(50) }
    var occurrences: [FrontendCode: Int] = [:]
    for (position, code) in steps.enumerated() {
      let occurrence = occurrences[code, default: 0]
      occurrences[code] = occurrence + 1
      backend.breach(.init(code: code, occurrence: occurrence, fault: fault))
      // A number that is merely different is no breach, nor is an answer too many to the last question.
      let isValue = [.getFeatures, .getProtocolFeatures, .getQueueNum, .getStatus].contains(code)
      if fault == .refusal, isValue { continue }
      if fault == .twice, code == .getFeatures, occurrence == 1 { continue }
      // Before acknowledgements are agreed these have no answer that could be wrong.
      if [.setOwner, .setProtocolFeatures].contains(code), fault != .close { continue }
      // Nothing was started that this reset would have to stop.
      if fault == .refusal, code == .setStatus, occurrence == 0 { continue }
      // On a busy machine the short time-out may be over before the step is reached: again, then.
      var (error, free) = (nil as NetworkDeviceError?, pool.free)
      for _ in 0..<20 {
        let breaches = backend.breaches
        free = pool.free
        error = await opening.failure()
        if backend.breaches > breaches { break }
      }
      let expected: [NetworkDeviceError.Code] =
        switch fault {
        case .silence, .halfThenSilence: [.timedOut]
        case .refusal: [.unsupported]
        default: [.broken]
        }
      #expect(error.map { expected.contains($0.code) } == true, "\(fault) at \(code): \(String(describing: error))")
      let kept = free - pool.free
      if fault == .twice, position == kick - 1 {
        // The second answer may come before the kick is sent, or after it.
        #expect([0, 16].contains(kept))
      } else {
        // The receive ring was started and nothing says that it is stopped: its buffers may still be written to. A refusal leaves a
        // back-end that says so.
        #expect(kept == (fault != .refusal && position >= kick ? 16 : 0), "\(fault) at \(code)")
      }
    }
    let free = pool.free
    backend.breach(nil)
    try await (try await opening.open()).close()
    #expect(pool.free == free)
    try await eventually("every descriptor is closed again") { openDescriptors() <= before }
    try await eventually("the rings' memory is gone") { ringMappings() <= mappings }
  }

  /// Where the rings are stopped, the answers say that the back-end is done with the buffers; without them it may not be.
  @Test(arguments: ScriptedBackend.Fault.allCases, [0, 1])
  func `a bad answer while it is closed confirms nothing, and nothing is left open`(
    _ fault: ScriptedBackend.Fault, _ occurrence: Int
  ) async throws {
    let pool = try PacketPool(.init(slots: 512, hugePages: false))
    let backend = ScriptedBackend(breach: .init(code: .getVringBase, occurrence: occurrence, fault: fault))
    let (before, mappings) = (openDescriptors(), ringMappings())
    var opening = Opening(backend, pool: pool)
    // The time-out of the reset must do.
    opening.options.requestTimeout = .seconds(3600)
    // The second answer too many comes when every ring has stopped.
    let isConfirmed = fault == .twice && occurrence == 1
    do {
      let device = try await opening.open()
      try await device.close()
      #expect(isConfirmed)
    } catch {
      #expect(!isConfirmed)
      #expect((error as? NetworkDeviceError)?.code == .resetNotConfirmed, "\(error)")
    }
    // The receive ring's buffers are kept aside where the back-end may still write to them.
    #expect(pool.free == (isConfirmed ? 512 : 496))
    try await eventually("every descriptor is closed again") { openDescriptors() <= before }
    try await eventually("the rings' memory is gone") { ringMappings() <= mappings }
    // What may still be written to is handed to nobody, and the rest serves the next device.
    backend.breach(nil)
    let next = try await opening.open()
    try await next.close()
    #expect(pool.free == (isConfirmed ? 512 : 496))
  }

  @Test(arguments: [0, 0x8001, 1 << 40, UInt64.max])
  func `an absurd number of queue pairs is a typed error`(_ number: UInt64) async throws {
    var offer = ScriptedBackend.Offer()
    offer.queuePairs = number
    #expect(await Opening(ScriptedBackend(offer)).failure()?.code == .broken)
  }

  @Test(arguments: [[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]] as [[UInt8]])
  func `an absurd hardware address is a typed error`(_ address: [UInt8]) async throws {
    var offer = ScriptedBackend.Offer()
    offer.protocolFeatures.insert(.config)
    offer.features |= 1 << 5
    offer.config = address + [UInt8](repeating: 0, count: 6)
    #expect(await Opening(ScriptedBackend(offer)).failure()?.code == .broken)
  }

  @Test func `a back-end that asks and reads no answers loses its channel, and nothing grows`() async throws {
    let backend = ScriptedBackend()
    let device = try await Opening(backend).open()
    // Until the socket's buffer is full, and then some; a send that would block says so.
    var asked = 0
    try await eventually("the channel is closed") {
      while asked < 1_000_000, backend.request(2) { asked += 1 }
      return !backend.channelIsOpen
    }
    #expect(device.isLinkUp)
    try await device.close()
    #expect(backend.complaints == [])
  }

  @Test func `nobody there is a typed error`() async throws {
    let backend = ScriptedBackend()
    backend.end()
    #expect(await Opening(backend).failure()?.code == .notFound)
  }

  @Test func `nobody who connects is a typed error in time, and the file is gone`() async throws {
    let backend = ScriptedBackend()
    backend.end()
    var opening = Opening(backend, role: .listen)
    opening.options.connectTimeout = .milliseconds(30)
    let before = openDescriptors()
    #expect(await opening.failure()?.code == .timedOut)
    #expect(!fileExists(backend.path))
    try await eventually("every descriptor is closed again") { openDescriptors() <= before }
  }

  @Test func `a path that somebody listens on is busy, and one that is no socket is left alone`() async throws {
    let backend = ScriptedBackend()
    #expect(await Opening(backend, role: .listen).failure()?.code == .busy)
    var opening = Opening(backend, role: .listen)
    opening.options.path = "/dev/null"
    #expect(await opening.failure()?.code == .busy)
    #expect(fileExists("/dev/null"))
  }

  @Test func `a path that is too long is refused before anything is opened`() async throws {
    var options = VhostUserTransport.Options(path: "/tmp/" + String(repeating: "x", count: 103))
    #expect(throws: NetworkDeviceError.self) { try VhostUserTransport(options) }
    options.path = "/tmp/" + String(repeating: "x", count: 102)
    _ = try VhostUserTransport(options)
    options.path = "/tmp/a\0b"
    #expect(throws: NetworkDeviceError.self) { try VhostUserTransport(options) }
    options.path = ""
    #expect(throws: NetworkDeviceError.self) { try VhostUserTransport(options) }
  }

  @Test(arguments: [VhostUserTransport.Role.connect, .listen])
  func `opening can be cancelled while the back-end keeps us waiting`(_ role: VhostUserTransport.Role) async throws {
    let backend = ScriptedBackend(breach: .init(code: .getFeatures, fault: .silence), isClient: role == .listen)
    if role == .listen { backend.end() }
    var opening = Opening(backend, role: role)
    opening.options.requestTimeout = .seconds(600)
    opening.options.connectTimeout = .seconds(600)
    let task = Task { [opening] in await opening.failure() }
    if role == .connect {
      try await eventually("it asks") { backend.messages.contains(.getFeatures) }
    } else {
      try await eventually("it listens") { fileExists(backend.path) }
    }
    task.cancel()
    #expect(await task.value?.code == .cancelled)
  }
}
