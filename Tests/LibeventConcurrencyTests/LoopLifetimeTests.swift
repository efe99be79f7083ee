import CNetdevSystem
import Foundation
import Glibc
import Synchronization
import Testing

@testable import LibeventConcurrency

/// What a backend and its events were told, in order, and on which loop's thread.
private final class Diary: Sendable {
  private let lines = Mutex<[String]>([])
  func write(_ line: String) {
    let place = netdev_current_loop_identity() == 0 ? " elsewhere" : ""
    lines.withLock { $0.append(line + place) }
  }
  var text: [String] { lines.withLock { $0 } }
}

/// A backend of which nothing fires, and that writes a diary.
private final class DiaryBackend: LoopBackend {
  private let diary: Diary
  init(_ diary: Diary) { self.diary = diary }
  var now: UInt64 { 0 }
  func poll() {}
  func wait() {}
  func wake() {}
  func makeSource(
    descriptor: CInt, readiness: LoopSource.Readiness, handler: @escaping () -> Void
  ) throws(LoopError) -> any LoopBackendEvent { DiaryEvent("source", diary, handler) }
  func makeTimer(handler: @escaping () -> Void) throws(LoopError) -> any LoopBackendEvent {
    DiaryEvent("timer", diary, handler)
  }
  func close() { diary.write("close") }
}

private final class DiaryEvent: LoopBackendEvent {
  private let name: String
  private let diary: Diary
  private var handler: (() -> Void)?
  init(_ name: String, _ diary: Diary, _ handler: @escaping () -> Void) {
    self.name = name
    self.diary = diary
    self.handler = handler
  }
  func arm(afterNanoseconds: UInt64) { diary.write("arm \(name)") }
  func disarm() { diary.write("disarm \(name)") }
  func cancel() {
    diary.write("cancel \(name)")
    handler = nil
  }
}

/// Says when it goes.
private final class Witness {
  private let onEnd: () -> Void
  init(_ onEnd: @escaping () -> Void) { self.onEnd = onEnd }
  deinit { onEnd() }
  func nothing() {}
}

/// Makes a timer and a source on its loop.
private actor Maker {
  let loop: LoopExecutor
  private var timer: LoopTimer?
  private var source: LoopSource?
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
  init(_ loop: LoopExecutor) { self.loop = loop }
  func makeTimer(_ handler: @escaping @Sendable () -> Void = {}) throws { timer = try loop.makeTimer(handler: handler) }
  func makeSource(_ descriptor: CInt, _ handler: @escaping @Sendable () -> Void) throws {
    source = try loop.makeSource(descriptor: descriptor, readiness: .readable, handler: handler)
    source?.resume()
  }
  func holdWitness(_ onEnd: @escaping @Sendable () -> Void) throws {
    let witness = Witness(onEnd)
    timer = try loop.makeTimer { witness.nothing() }
  }
  func schedule(after delay: Duration) { timer?.schedule(after: delay) }
  func giveAway() -> Parcel { Parcel(timer.take() ?? source.take()) }
  func cancelAll() {
    timer?.cancel()
    source?.cancel()
    timer?.cancel()
  }
}

@Suite(.timeLimit(.minutes(2))) struct LoopLifetimeTests {
  @Test func `a loop's events end before its backend, on the loop, although their handles live on`() async throws {
    let diary = Diary()
    var handles: [Any] = []
    do {
      let loop = LoopExecutor(name: "test", backend: DiaryBackend(diary))
      unsafe netdev_set_current_loop(loop.core)
      let timer = try loop.makeTimer {}
      timer.schedule(after: .seconds(1))
      let source = try loop.makeSource(descriptor: 0, readiness: .readable) {}
      netdev_set_current_loop(nil)
      handles = [timer, source]
    }
    #expect(diary.text.first == "arm timer")
    #expect(diary.text.dropFirst().dropLast().sorted() == ["cancel source", "cancel timer"])
    #expect(diary.text.last == "close")
    // What goes later reaches nobody.
    handles = []
    #expect(diary.text.count == 4)
    #expect(handles.isEmpty)
  }

  @Test func `a handle that goes elsewhere is ended by the loop, in its next turn and on its thread`() throws {
    let diary = Diary()
    let loop = LoopExecutor(name: "test", backend: DiaryBackend(diary))
    unsafe netdev_set_current_loop(loop.core)
    var timer: LoopTimer? = try loop.makeTimer {}
    timer?.schedule(after: .seconds(1))
    netdev_set_current_loop(nil)
    timer = nil
    #expect(diary.text == ["arm timer"])
    loop.turnOnce()
    #expect(diary.text == ["arm timer", "cancel timer"])
    #expect(timer == nil)
  }

  @Test func `a pending timer whose last reference goes on another thread never fires, and its loop goes on`()
    async throws
  {
    let loop = try LoopExecutor(name: "test")
    let maker = Maker(loop)
    let fired = Atomic<Int>(0)
    for _ in 0..<200 {
      try await maker.makeTimer { fired.add(1, ordering: .relaxed) }
      await maker.schedule(after: .milliseconds(20))
      var parcel = await maker.giveAway()
      parcel.drop()
    }
    try await Task.sleep(for: .milliseconds(40))
    #expect(fired.load(ordering: .relaxed) == 0)
    let idle = loop.statistics.idleTurns
    try await Task.sleep(for: .milliseconds(40))
    #expect(loop.statistics.idleTurns <= idle + 2)
  }

  @Test func `what a handler holds is released on the loop, whoever drops its timer`() async throws {
    let loop = try LoopExecutor(name: "test")
    let maker = Maker(loop)
    let places = Mutex<[Bool]>([])
    for _ in 0..<20 {
      try await maker.holdWitness { [weak loop] in places.withLock { $0.append(loop?.isOnLoop ?? false) } }
      var parcel = await maker.giveAway()
      parcel.drop()
    }
    while places.withLock({ $0.count }) < 20 { try await Task.sleep(for: .milliseconds(1)) }
    #expect(places.withLock { $0 } == Array(repeating: true, count: 20))
  }

  @Test func `a source whose handle went elsewhere is silent from the loop's next turn on`() async throws {
    let loop = try LoopExecutor(name: "test")
    let maker = Maker(loop)
    let descriptor = netdev_eventfd_create()
    defer { close(descriptor) }
    let seen = Atomic<Int>(0)
    try await maker.makeSource(descriptor) { seen.add(Int(netdev_eventfd_drain(descriptor)), ordering: .relaxed) }
    var parcel = await maker.giveAway()
    parcel.drop()
    // A job that comes after: the turn that runs it ends the event first.
    await maker.cancelAll()
    _ = netdev_eventfd_signal(descriptor)
    for _ in 0..<20 { await maker.cancelAll() }
    #expect(seen.load(ordering: .relaxed) == 0)
  }

  @Test
  func `loops with pending timers and sources come and go, their handles before them, after them, or beside them`()
    async throws
  {
    let descriptor = netdev_eventfd_create()
    defer { close(descriptor) }
    for round in 0..<100 {
      var parcel: Parcel
      do {
        let loop = try LoopExecutor(name: "test")
        let maker = Maker(loop)
        if round % 2 == 0 {
          try await maker.makeTimer()
          await maker.schedule(after: .microseconds(round * 10))
        } else {
          try await maker.makeSource(descriptor) {}
        }
        parcel = await maker.giveAway()
        if round % 3 == 0 { parcel.drop() }
        if round % 3 == 1 { await maker.cancelAll() }
      }
      parcel.drop()
    }
  }

  @Test func `a descriptor that the system will not watch is looked at by a timer, until the system will`()
    async throws
  {
    let loop = try LoopExecutor(name: "test")
    let maker = Maker(loop)
    // epoll takes no regular file.
    let path = "/tmp/netdev-\(getpid())-unwatched"
    let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    try #require(descriptor >= 0)
    defer {
      close(descriptor)
      unsafe unlink(path)
    }
    let seen = Atomic<Int>(0)
    let drained = Atomic<Int>(0)
    try await maker.makeSource(descriptor) {
      seen.add(1, ordering: .relaxed)
      drained.add(Int(netdev_eventfd_drain(descriptor)), ordering: .relaxed)
    }
    while seen.load(ordering: .relaxed) < 3 { try await Task.sleep(for: .milliseconds(1)) }
    #expect(loop.statistics.refusedWatches > 0)
    // Now the number stands for an eventfd.
    let event = netdev_eventfd_create()
    #expect(dup2(event, descriptor) == descriptor)
    _ = netdev_eventfd_signal(event)
    while drained.load(ordering: .relaxed) == 0 { try await Task.sleep(for: .milliseconds(1)) }
    // The system is asked twice a second.
    try await Task.sleep(for: .milliseconds(1500))
    let refused = loop.statistics.refusedWatches
    for expected in 2...20 {
      _ = netdev_eventfd_signal(event)
      while drained.load(ordering: .relaxed) < expected { try await Task.sleep(for: .microseconds(200)) }
    }
    #expect(loop.statistics.refusedWatches == refused)
    await maker.cancelAll()
    close(event)
  }
}
