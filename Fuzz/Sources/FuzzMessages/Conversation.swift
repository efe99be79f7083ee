import CNetdevSystem
import FuzzSupport
import Glibc
import LibeventConcurrency
import Logging
import Netdev
import NetdevTesting
import Synchronization
import Virtio
import VirtioNet

@testable import VhostUser

/// A session of our front-end from its first word to its last, with a back-end that says what the input says.
///
/// The front-end's task runs on the loop that is turned here, so that an input takes the same course every time. When the
/// input ends, the back-end hangs up; the session must then be over, one way or the other.
func runConversation(_ input: inout InputReader) {
  let hand = HandTurnedLoop(backend: PolledBackend())
  let executor = LoopTaskExecutor(loop: hand.loop)
  var ends: [CInt] = [-1, -1]
  promise(netdev_unix_pair(&ends) == 0, "there is a pair of sockets")
  let session = Session(
    loop: hand.loop, name: "fuzz", logger: Logger(label: "fuzz") { _ in SilentLog() }, requestTimeout: .seconds(3600),
    onNews: {})
  let peer = ScriptedPeer(ends[1])
  let memory = netdev_eventfd_create()
  do {
    try session.assumeIsolated { [end = ends[0]] session in try session.open(descriptor: end) }
  } catch {
    violated("a session opens: \(error)")
  }
  withExtendedLifetime(executor) {
    let over = Over()
    Task(executorPreference: executor) { [session] in
      try? await converse(session, memory: memory)
      over.isOver.store(true, ordering: .releasing)
    }
    var turns = 0
    while true {
      hand.poll()
      if over.isOver.load(ordering: .acquiring) { break }
      peer.hear()
      if !input.isAtEnd { peer.say(&input) } else { peer.hangUp() }
      turns += 1
      promise(turns < 100_000, "a session whose back-end has hung up is over")
    }
  }
  session.assumeIsolated { $0.shutDown() }
  hand.poll()
  peer.hangUp()
  close(memory)
}

/// Whether the front-end's task has ended.
private final class Over: Sendable {
  let isOver = Atomic<Bool>(false)
}

/// Everything that the front-end ever asks, in its order.
private func converse(_ session: Session, memory: CInt) async throws(NetworkDeviceError) {
  try await session.agree()
  let offered = await session.agreement.offered
  try await session.setFeatures(offered, mtu: 1500)
  if let bytes = try await session.config(for: offered) {
    promise(bytes.count == NetConfig.length(for: offered), "a configuration has the length that its features need")
    _ = try? NetConfig(reading: CopiedConfig(bytes), features: offered)
  }
  try await session.setStatus([.acknowledge, .driver, .featuresOK])
  _ = try await session.status()
  let region = MemoryRegion(address: 0x1_0000, size: 0x1000, fileOffset: 0, descriptor: memory)
  try await session.share([region, region])
  guard let layout = try? RingLayout(.split, size: 256) else { violated("256 is a size") }
  let rings = (0..<2).map { VirtioQueuePlacement(index: $0, layout, at: 0x2_0000, features: .version1) }
  try await session.start([
    RingSetup(rings[0], base: 0, kick: memory, call: memory, error: memory),
    RingSetup(rings[1], base: 0, kick: nil, call: memory, error: memory),
  ])
  if await session.takeConfigChange() { _ = try await session.config(for: [.status]) }
  try await session.stop(within: .seconds(3600))
}

/// Formats everything and keeps nothing.
private struct SilentLog: LogHandler {
  var logLevel = Logger.Level.trace
  var metadata: Logger.Metadata = [:]

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) { _ = "\(event.message)" }
}
