import CNetdevSystem
import Foundation
import Glibc
import LibeventConcurrency
import NetdevDevices
import NetdevTesting
import Synchronization
import Testing

/// What a world finds wrong with a program, whoever wrote it: each time a program that does just that.
@Suite struct FindingTests {
  private func findings(_ body: @escaping @Sendable (SimulatedWorld) async throws -> Void) async -> [String] {
    var simulation = Simulation(seed: 1)
    simulation.limits.stepsInPlace = 5000
    return await simulation.observe(body).findings
  }

  @Test func `a task that nobody resumes`() async {
    let found = await findings { world in
      let gate = AsyncStream.makeStream(of: Int.self)
      for await _ in gate.stream {}
      gate.continuation.finish()
    }
    #expect(found.first?.hasPrefix("a wait for ever") == true, "\(found)")
  }

  @Test func `a task that never rests`() async {
    let found = await findings { world in while true { await Task.yield() } }
    #expect(found.first?.contains("steps in which no time passed") == true, "\(found)")
  }

  @Test func `a task that another thread resumes`() async {
    let found = await findings { world in
      await withCheckedContinuation { continuation in
        StrangerThread {
          usleep(20_000)
          continuation.resume()
        }.detach()
      }
    }
    #expect(found.first?.hasSuffix("resumed a task of the world") == true, "who did it comes first: \(found)")
    #expect(found.last == "task 1 'the body' escaped", "\(found)")
  }

  /// A thread that holds an actor goes on with the world's task that has come to it meanwhile. Of one that holds it for longer than
  /// threads are waited for nobody knows: to the world its task waits for ever, as any other.
  @Test(arguments: [(300, 5000, "has gone on with the body"), (1000, 200, "a wait for ever")])
  func `an actor that another thread holds`(milliseconds: Int, patience: Int, word: String) async {
    let actor = Held()
    let holding = Task.detached { await actor.hold(milliseconds: milliseconds) }
    while !actor.isHeld.load(ordering: .acquiring) { try? await Task.sleep(for: .milliseconds(1)) }
    var simulation = Simulation(seed: 1)
    simulation.limits.arrivalMilliseconds = patience
    let report = await simulation.observe { _ in await actor.touch {} }
    #expect(report.findings.contains { $0.contains(word) }, "\(report)")
    await holding.value
  }

  @Test func `the world's chance, drawn from on another thread`() async {
    let actor = Held()
    let holding = Task.detached { await actor.hold(milliseconds: 300) }
    while !actor.isHeld.load(ordering: .acquiring) { try? await Task.sleep(for: .milliseconds(1)) }
    let found = await findings { world in await actor.touch { _ = world.choose(below: 2) } }
    #expect(found.contains { $0.contains("draws from the world's chance") }, "\(found)")
    await holding.value
    let own = await findings { world in await Held().touch { _ = world.choose(below: 2) } }
    #expect(own.isEmpty, "\(own)")
  }

  @Test func `a loop that another thread wakes`() async {
    let found = await findings { world in
      let device = try await world.open("loopback:")
      let queue = device.queues[0]
      await withCheckedContinuation { continuation in
        StrangerThread { queue.loop.wake() }.join()
        continuation.resume()
      }
      try await Task.sleep(for: .seconds(1))
      try await device.close()
    }
    #expect(found.contains { $0.hasSuffix("woke the loop 'loopback/0'") }, "\(found)")
  }

  @Test func `a task for the main actor`() async {
    let found = await findings { world in await MainActor.run {} }
    #expect(found.contains { $0.contains("main actor") }, "\(found)")
  }

  @Test func `a task that still sleeps`() async {
    let found = await findings { world in
      Task.detached { for _ in 0..<1000 { try await Task.sleep(for: .seconds(1 << 30)) } }
    }
    #expect(found.contains { $0.contains("still sleep") }, "\(found)")
  }

  @Test func `a device that is not closed, and a packet that is kept`() async {
    let kept = Kept()
    let found = await findings { world in
      let device = try await world.open("loopback:")
      kept.packet = try Packet(copying: [UInt8](repeating: 0, count: 64), in: device.pool)
      try await device.close()
    }
    #expect(found.contains { $0.contains("1 buffers have not come home") }, "\(found)")
    let open = Kept()
    let foundOpen = await findings { world in open.device = try await world.open("loopback:") }
    #expect(foundOpen.contains { $0.contains("is still held at the end") }, "\(foundOpen)")
  }

  @Test func `a wait for ever names the tasks and the interfaces that it knows of`() async {
    let report = await Simulation(seed: 1).observe { world in
      let interface = world.makeInterface("tap0")
      let port = world.port(7000)
      let ended = world.task("the first") {}
      let waiting = world.task("the second") { _ = await interface?.next() }
      let other = world.task("the third") { _ = await port.next() }
      _ = await (ended.result, waiting.result, other.result)
    }
    #expect(
      report.findings == [
        "a wait for ever: nothing is to be done, and no timer is set; tasks that have not ended: 'the second', 'the third'; "
          + "somebody waits for what comes to the interface tap0 and to the port 7000"
      ], "\(report)")
    for name in ["task 1 'the body'", "task 2 'the first'", "task 3 'the second'"] {
      #expect(report.trace.contains { $0.hasSuffix("pool: \(name)") }, "\(report)")
    }
  }

  /// Which threads of the program are told by, whenever it begins them.
  @Test func `the world's thread has its name from the first step on`() async throws {
    for seed in 0..<50 as Range<UInt64> {
      let name = try await Simulation(seed: seed).run { _ in
        try String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8)
      }
      #expect(name == "simulation\n")
    }
  }

  @Test func `a task has its name`() async throws {
    let name = try await Simulation(seed: 1).run { world in try await world.task("the sender") { Task.name }.value }
    #expect(name == "the sender")
  }

  /// Each member of a world, used by a thread that goes on with the body because it held an actor: a finding, and nothing else.
  @Test(arguments: Self.uses) func `the world, used from another thread`(_ use: Use) async {
    let actor = Held()
    let holding = Task.detached { await actor.holdUntilWanted() }
    while !actor.isHeld.load(ordering: .acquiring) { try? await Task.sleep(for: .milliseconds(1)) }
    let report = await Simulation(seed: 1).observe { world in
      actor.isWanted.store(true, ordering: .releasing)
      await actor.touch { use.use(world) }
    }
    #expect(report.findings.first?.contains(use.word) == true, "\(report)")
    await holding.value
    let own = await Simulation(seed: 1).observe { world in await Held().touch { use.use(world) } }
    #expect(own.findings == (use.word == "says: found" ? ["found"] : []), "\(own)")
  }

  struct Use: Sendable, CustomTestStringConvertible {
    let word: String
    let use: @Sendable (SimulatedWorld) -> Void
    var testDescription: String { word }
  }

  /// The same of what a world has made.
  @Test(arguments: Self.partUses) func `a part of the world, used from another thread`(_ use: PartUse) async {
    let actor = Held()
    let holding = Task.detached { await actor.holdUntilWanted() }
    while !actor.isHeld.load(ordering: .acquiring) { try? await Task.sleep(for: .milliseconds(1)) }
    let report = await Simulation(seed: 1).observe { world in
      let parts = try Parts(world)
      actor.isWanted.store(true, ordering: .releasing)
      await actor.reach { try? await use.use(parts) }
    }
    let first = report.findings.first ?? ""
    #expect(first.contains("(number ") && first.hasSuffix(use.word), "\(report)")
    await holding.value
    let own = await Simulation(seed: 1).observe { world in
      let parts = try Parts(world)
      // Somebody must come to an end of waiting.
      parts.bell.ring()
      parts.interface.finish()
      parts.port.finish()
      await Held().reach { try? await use.use(parts) }
      parts.peer.end()
    }
    #expect(own.findings.isEmpty && own.error == nil, "\(own)")
  }

  /// All but what may be read when a world is over.
  private static let changes = partUses.filter {
    !["configuration", "whenDriven", "whenHungUp", "isLinkUp"].contains($0.testDescription)
  }

  @Test(arguments: changes) func `parts of a world that is over are none of a later one's`(_ use: PartUse) async {
    let kept = Mutex<Parts?>(nil)
    // That the peer's loop outlives it is found, too.
    _ = await Simulation(seed: 1).observe { world in
      let parts = try Parts(world)
      kept.withLock { $0 = parts }
      parts.peer.end()
    }
    let later = await Simulation(seed: 2).observe { _ in
      if let parts = kept.withLock({ $0 }) { try await use.use(parts) }
    }
    #expect(later.findings.contains("a task \(use.word): that of seed 1, which is over"), "\(later)")
  }

  final class Parts: Sendable {
    let world: SimulatedWorld
    let interface: SimulatedInterface
    let port: SimulatedPort
    let peer: VhostUserPeer
    let bell = SimulatedBell()

    init(_ world: SimulatedWorld) throws {
      self.world = world
      interface = try #require(world.makeInterface("tap0"))
      port = world.port(7000)
      peer = try VhostUserPeer(world, path: "/tmp/netdev-parts")
    }
  }

  struct PartUse: Sendable, CustomTestStringConvertible {
    let word: String
    let testDescription: String
    let use: @Sendable (Parts) async throws -> Void

    init(_ word: String, _ name: String, _ use: @escaping @Sendable (Parts) async throws -> Void) {
      (self.word, testDescription, self.use) = (word, name, use)
    }
  }

  private static let partUses: [PartUse] = [
    PartUse("uses the interface tap0", "queues") { _ = $0.interface.queues },
    PartUse("uses the interface tap0", "send") { $0.interface.send([]) },
    PartUse("uses the interface tap0", "take") { _ = $0.interface.take() },
    PartUse("uses the interface tap0", "next") { _ = await $0.interface.next() },
    PartUse("uses the interface tap0", "finish") { $0.interface.finish() },
    PartUse("uses the interface tap0", "setRoom") { $0.interface.setRoom(1) },
    PartUse("uses the interface tap0", "setUp") { $0.interface.setUp(false) },
    PartUse("uses the interface tap0", "setMTU") { $0.interface.setMTU(100) },
    PartUse("uses the interface tap0", "delete") { $0.interface.delete() },
    PartUse("uses the port 7000", "send") { $0.port.send([], from: 1) },
    PartUse("uses the port 7000", "take") { _ = $0.port.take() },
    PartUse("uses the port 7000", "next") { _ = await $0.port.next() },
    PartUse("uses the port 7000", "finish") { $0.port.finish() },
    PartUse("uses the peer at /tmp/netdev-parts", "configuration") { _ = $0.peer.configuration },
    PartUse("uses the peer at /tmp/netdev-parts", "configuration =") { $0.peer.configuration = .init() },
    PartUse("uses the peer at /tmp/netdev-parts", "whenDriven") { _ = $0.peer.whenDriven },
    PartUse("uses the peer at /tmp/netdev-parts", "whenDriven =") { $0.peer.whenDriven = nil },
    PartUse("uses the peer at /tmp/netdev-parts", "whenHungUp") { _ = $0.peer.whenHungUp },
    PartUse("uses the peer at /tmp/netdev-parts", "whenHungUp =") { $0.peer.whenHungUp = nil },
    PartUse("uses the peer at /tmp/netdev-parts", "isLinkUp") { _ = $0.peer.isLinkUp },
    PartUse("uses the peer at /tmp/netdev-parts", "begin") { $0.peer.begin() },
    PartUse("uses the peer at /tmp/netdev-parts", "exit") { $0.peer.exit() },
    PartUse("uses the peer at /tmp/netdev-parts", "hangUp") { $0.peer.hangUp() },
    PartUse("uses the peer at /tmp/netdev-parts", "hangUp later") { $0.peer.hangUp(exitingAfter: .seconds(1)) },
    PartUse("uses the peer at /tmp/netdev-parts", "setLink") { $0.peer.setLink(isUp: false) },
    PartUse("uses the peer at /tmp/netdev-parts", "reportError") { $0.peer.reportError() },
    PartUse("uses the peer at /tmp/netdev-parts", "perform") { _ = await $0.peer.perform { _ in 1 } },
    PartUse("uses the peer at /tmp/netdev-parts", "end") { $0.peer.end() },
    PartUse("makes a peer of the world's", "init") { try VhostUserPeer($0.world, path: "other").end() },
    PartUse("uses a bell of the world", "ring") { $0.bell.ring() },
    PartUse("uses a bell of the world", "wait") { await $0.bell.wait() },
  ]

  private static let uses: [Use] = [
    Use(word: "draws from the world's chance") { _ = $0.choose(below: 2) },
    Use(word: "draws from the world's chance") { _ = $0.chance(oneIn: 2) },
    Use(word: "says what may happen") { $0.mayHappen("it") {} },
    Use(word: "writes in the world's trace") { $0.note("a word") },
    Use(word: "says: found") { $0.find("found") },
    Use(word: "reads the world's clock") { _ = $0.now },
    Use(word: "reads what has happened") { _ = $0.happened },
    Use(word: "asks whether the world is calm") { _ = $0.isCalm },
    Use(word: "counts the world's refusals") { _ = $0.refusals },
    Use(word: "makes an interface of the world") { _ = $0.makeInterface("tap0") },
    Use(word: "takes a port of the world") { _ = $0.port(7000) },
    Use(word: "begins a task of the world's") { _ = $0.task("a task") {} },
    Use(word: "tells the world of a pool") { world in
      if let pool = try? PacketPool() { world.watch(pool) }
    },
  ]

  @Test func `a descriptor that is left open, and not one that another thread opens meanwhile`() async {
    let kept = Kept()
    let found = await findings { _ in
      kept.descriptors = unsafe [open("/dev/null", O_RDONLY), dup(1), fcntl(0, F_DUPFD_CLOEXEC, 3), dup(0)]
      close(kept.descriptors.removeLast())
      StrangerThread { kept.descriptors.append(unsafe open("/dev/zero", O_RDONLY)) }.join()
    }
    for descriptor in kept.descriptors { close(descriptor) }
    #expect(found.count == 1 && found[0].hasPrefix("3 descriptors are left open: "), "\(found)")
    #expect(found.first?.contains("/dev/null") == true && found.first?.contains("/dev/zero") == false, "\(found)")
  }

  @Test func `a descriptor that the C library opens inside of itself, and one that it has closed`() async {
    let path = FileManager.default.temporaryDirectory.appending(path: "left-\(getpid())").path
    let kept = Kept()
    let found = await findings { _ in
      var template = Array("\(path)-XXXXXX".utf8CString)
      kept.descriptors = unsafe [creat(path, 0o600), mkstemp(&template), dup2(0, 900)]
      kept.names = [path, String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)]
      unsafe (kept.file, kept.folder) = (fopen("/dev/null", "r"), opendir("/dev"))
      if let file = unsafe fopen("/dev/null", "r") { unsafe fclose(file) }
      if let folder = unsafe opendir("/dev") { unsafe closedir(folder) }
      dup2(0, kept.descriptors[0])
    }
    kept.close()
    #expect(found.count == 1 && found[0].hasPrefix("5 descriptors are left open: "), "\(found)")
  }

  /// Closed where nobody sees it, and taken by another thread: it is none of the world's.
  @Test func `a descriptor's number that is used again`() async {
    let kept = Kept()
    let found = await findings { _ in
      let descriptor = unsafe open("/dev/null", O_RDONLY)
      typealias Close = @convention(c) (CInt) -> CInt
      guard let close = unsafe dlsym(nil, "__close") else { return }
      #expect(unsafe unsafeBitCast(close, to: Close.self)(descriptor) == 0)
      StrangerThread {
        repeat { kept.descriptors.append(unsafe open("/dev/zero", O_RDONLY)) } while kept.descriptors.last != descriptor
      }.join()
    }
    kept.close()
    #expect(found.isEmpty, "\(found)")
  }

  @Test func `a descriptor that is left open has a word for what it is`() async {
    let kept = Kept()
    let found = await findings { _ in
      kept.descriptors = [netdev_eventfd_create(), socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)]
    }
    kept.close()
    #expect(found == ["2 descriptors are left open: a UDP socket, anon_inode:[eventfd]"], "\(found)")
  }

  @Test func `a run that does not end`() async {
    var simulation = Simulation(seed: 1)
    simulation.limits.steps = 50
    let report = await simulation.observe { _ in while true { try await Task.sleep(for: .seconds(1)) } }
    #expect(report.findings == ["no end after 50 steps"])
  }

  @Test func `a loop that spins, and not one that works or one that rests in between`() async {
    let spinning = await findings { world in try await turn(400, works: false) }
    #expect(spinning.first?.hasPrefix("the loop 'turner' spins") == true, "\(spinning)")
    let working = await findings { world in try await turn(400, works: true) }
    #expect(working.isEmpty)
    let resting = await findings { world in try await turn(90, times: 5, works: false) }
    #expect(resting.isEmpty)
  }

  @Test func `what the program throws is no finding of the world's`() async {
    struct Thrown: Error {}
    await #expect(throws: Thrown.self) { try await Simulation(seed: 1).run { _ in throw Thrown() } }
  }
}

/// A loop whose hook asks for so many turns, one after the other, so many times with a second between them, and says that it works
/// in them, or does not.
private func turn(_ count: Int, times: Int = 1, works: Bool) async throws {
  let state = Turns(works: works)
  let loop = try LoopExecutor(name: "turner")
  let scope = LoopScope(loop)
  let token = try await scope.run { _ in try loop.addHook(state.hook) }
  for _ in 0..<times {
    state.left = count
    loop.wake()
    try await Task.sleep(for: .seconds(1))
    #expect(state.left == 0)
  }
  try await scope.run { _ in try loop.removeHook(token) }
}

@safe private final class Turns: @unchecked Sendable {
  // Proof: the tasks of one world, one after the other.
  var left = 0
  let works: Bool

  init(works: Bool) { self.works = works }

  /// Proof of the context: whoever adds the hook holds this until it is removed.
  var hook: TurnHook {
    unsafe TurnHook(
      stage: .driver, context: Unmanaged.passUnretained(self).toOpaque(), begin: { _ in },
      end: { context in
        let state = unsafe Unmanaged<Turns>.fromOpaque(context).takeUnretainedValue()
        guard state.left > 0 else { return false }
        state.left -= 1
        if state.works { TurnHook.noteWork() }
        return true
      })
  }
}

private actor Held {
  nonisolated let isHeld = Atomic<Bool>(false)
  nonisolated let isWanted = Atomic<Bool>(false)

  func hold(milliseconds: Int) {
    isHeld.store(true, ordering: .releasing)
    usleep(useconds_t(milliseconds * 1000))
  }

  func holdUntilWanted() {
    isHeld.store(true, ordering: .releasing)
    while !isWanted.load(ordering: .acquiring) { usleep(1000) }
    usleep(100_000)
  }

  func touch(_ body: @Sendable () -> Void) { body() }

  private var reached = 0

  func reach(_ body: @Sendable () async -> Void) async {
    // On this actor: without anything of its own to do here, `body` would begin where the caller is.
    reached += 1
    await body()
  }
}

@safe private final class Kept: @unchecked Sendable {
  // Proof: the tasks of one world, one after the other.
  var packet: Packet?
  var device: NetworkDevice?
  var descriptors: [CInt] = []
  var names: [String] = []
  var file: UnsafeMutablePointer<FILE>?
  var folder: OpaquePointer?

  func close() {
    for descriptor in descriptors { Glibc.close(descriptor) }
    for name in names { unsafe unlink(name) }
    if let file = unsafe file { unsafe fclose(file) }
    if let folder = unsafe folder { unsafe closedir(folder) }
  }
}
