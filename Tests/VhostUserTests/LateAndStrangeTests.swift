import CNetdevSystem
import Glibc
import LibeventConcurrency
import Logging
import Netdev
import Synchronization
import TestSupport
import Testing
import VirtioNet

@testable import VhostUser

/// Who comes late, who comes for nothing, and who shares what must not be shared.
@Suite(.serialized, .timeLimit(.minutes(3))) struct LateAndStrangeTests {
  @Test func `a control loop that is a queue's too is refused, with what to do`() async throws {
    let backend = ScriptedBackend()
    var opening = Opening(backend)
    let loop = try LoopExecutor(name: "both")
    opening.configuration.loops = [loop]
    opening.configuration.controlLoop = loop
    let error = await opening.failure()
    #expect(error?.code == .invalidConfiguration)
    #expect(error?.offered.contains("control loop") == true)
    // And the loop serves another device, whose control plane is elsewhere.
    opening.configuration.controlLoop = nil
    let device = try await opening.open()
    try? await device.close()
  }

  @Test func `strangers in the backlog do not outlast the time for the back-end`() async throws {
    let backend = ScriptedBackend(isClient: true)
    backend.end()
    var opening = Opening(backend, role: .listen)
    let log = RecordedLog()
    opening.options.logger = log.logger(level: .debug)
    // Each stranger says nothing, and is waited for half of what there is for all.
    opening.options.requestTimeout = .milliseconds(200)
    opening.options.connectTimeout = .milliseconds(400)
    let path = opening.options.path
    let knocking = Task.detached {
      var strangers: [CInt] = []
      while strangers.count < 20, !Task.isCancelled {
        let descriptor = unsafe netdev_unix_connect(path)
        if descriptor >= 0 { strangers.append(descriptor) } else { await Task.yield() }
      }
      return strangers
    }
    let error = await opening.failure()
    knocking.cancel()
    for descriptor in await knocking.value { close(descriptor) }
    #expect(error?.code == .timedOut)
    let heard = log.lines.count { $0.contains("vhost-user stranger") }
    #expect((1...3).contains(heard), "\(heard) strangers were waited for")
  }

  @Test func `eventfds of an attempt that was given up are not shown to the next back-end`() async throws {
    let backend = ScriptedBackend()
    let device = try await ReconnectTests.opening(backend).open()
    let kicks = { backend.messages.count { if case .setVringKick = $0 { true } else { false } } }
    #expect(kicks() == 2)
    let hold = Hold()
    // A loop that does not answer: the first attempt to go on is given up, and what it asked the loop for is done later.
    device.queues[0].loop.execute { hold.wait() }
    let connections = backend.connections
    backend.hangUp()
    try await eventually("a second attempt is made") { backend.connections == connections + 2 }
    hold.end()
    try await ReconnectTests.waitUntilBack(device, times: 1)
    #expect(kicks() == 4)
    try? await device.close()
    #expect(backend.complaints == [])
  }

  /// Holds a loop.
  private final class Hold: Sendable {
    private let isOver = Atomic<Bool>(false)
    func wait() { while !isOver.load(ordering: .acquiring) {} }
    func end() { isOver.store(true, ordering: .releasing) }
  }

  @Test func `a watch that is about to doze does not pass over a doorbell that has just been added`() async throws {
    let loop = try LoopExecutor(name: "control")
    let watch = try KickWatch(loop: loop, pause: .milliseconds(1), patience: 1)
    try await watch.start()
    // Much to look at, though it is the same one: the time between its look and its sleep is what matters.
    watch.add(Array(repeating: try Doorbell(for: "quiet"), count: 20_000))
    var random = SystemRandomNumberGenerator()
    for _ in 0..<100 {
      let bell = try Doorbell(for: "late")
      usleep(UInt32.random(in: 0..<10_000, using: &random))
      watch.add([bell])
      #expect(bell.ring(watch))
      try await eventually("it is seen", within: .seconds(20)) { bell.isQuiet }
      watch.remove([bell])
    }
    await watch.stop()
  }
}
