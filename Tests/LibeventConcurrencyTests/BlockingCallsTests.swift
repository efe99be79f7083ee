import CNetdevSystem
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import LibeventConcurrency

/// Calls that may block: off the loops, in order, and never lost.
@Suite(.timeLimit(.minutes(2))) struct BlockingCallsTests {
  private final class Noted: Sendable {
    let numbers = Mutex<[Int]>([])
    /// Whoever looks at it waits.
    let isHeld = Atomic(true)
  }

  private actor Asker {
    nonisolated let loop: LoopExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    init(loop: LoopExecutor) { self.loop = loop }

    func ask<Answer: Sendable>(_ body: @escaping @Sendable () -> Answer) async -> Answer? {
      if case .value(let answer) = await loop.call(blocking: body).value() { return answer }
      return nil
    }

    func askAside<Answer: Sendable>(_ body: @escaping @Sendable () -> Answer) async -> Answer? {
      let outcome = await BlockingCalls.aside(body)
      #expect(loop.isOnLoop)
      if case .made(let answer) = outcome { return answer }
      return nil
    }
  }

  @Test func `a loop's call is made on no loop, and its result comes back`() async throws {
    let asker = Asker(loop: try LoopExecutor(name: "asker"))
    #expect(await asker.ask { netdev_current_loop_identity() } == 0)
  }

  @Test func `who waits for a queue's call has it made in its turn, and makes himself what nobody makes`() async {
    let (noted, queue) = (Noted(), BlockingQueue())
    let answers = await withTaskGroup(of: Bool.self) { group in
      for number in 0..<200 {
        group.addTask {
          queue.start { noted.numbers.withLock { $0.append(number) } }
          return queue.wait { noted.numbers.withLock { $0.contains(number) } }
        }
      }
      return await group.reduce(into: []) { $0.append($1) }
    }
    #expect(answers == Array(repeating: true, count: 200))
    #expect(noted.numbers.withLock { Set($0) }.count == 200)
  }

  @Test func `what is made aside is made on no loop, and whoever asked goes on where he was`() async throws {
    let asker = Asker(loop: try LoopExecutor(name: "asker"))
    #expect(await asker.askAside { netdev_current_loop_identity() } == 0)
  }

  @Test(arguments: [false, true])
  func `who is cancelled waits no longer for what is made aside, and what it brings is let go of off the loop`(
    isUnderWay: Bool
  ) async throws {
    /// What the call brings.
    final class Brought: Sendable {
      let noted: Noted
      init(_ noted: Noted) { self.noted = noted }
      deinit { noted.numbers.withLock { $0.append(netdev_current_loop_identity() == 0 ? 2 : 3) } }
    }
    let noted = Noted()
    let asker = Asker(loop: try LoopExecutor(name: "asker"))
    try await withThrowingTaskGroup(of: Bool.self) { group in
      group.addTask {
        if !isUnderWay { unsafe withUnsafeCurrentTask { unsafe $0?.cancel() } }
        let brought = await asker.askAside { () -> Brought in
          noted.numbers.withLock { $0.append(1) }
          while noted.isHeld.load(ordering: .relaxed) { usleep(1000) }
          return Brought(noted)
        }
        return brought == nil
      }
      if isUnderWay {
        try await eventually("the call is made") { noted.numbers.withLock { $0 == [1] } }
        group.cancelAll()
      }
      #expect(try await group.next() == true)
    }
    noted.isHeld.store(false, ordering: .relaxed)
    guard isUnderWay else { return #expect(noted.numbers.withLock { $0.isEmpty }) }
    try await eventually("what it brought is gone") { noted.numbers.withLock { $0 == [1, 2] } }
  }

  @Test func `cancelled calls that nobody answers are bounded`() async throws {
    let noted = Noted()
    let asker = Asker(loop: try LoopExecutor(name: "asker"))
    for number in 0...BlockingCalls.mostAbandoned {
      let asking = Task {
        await asker.askAside {
          noted.numbers.withLock { $0.append(number) }
          while noted.isHeld.load(ordering: .relaxed) { usleep(1000) }
        }
      }
      let isBegun = number < BlockingCalls.mostAbandoned
      if isBegun { try await eventually("the call is made") { noted.numbers.withLock { $0.contains(number) } } }
      asking.cancel()
      _ = await asking.value
      #expect(noted.numbers.withLock { $0.contains(number) } == isBegun)
    }
    noted.isHeld.store(false, ordering: .relaxed)
    // Once the system answers, there is room again.
    try await eventually("calls are made again") { await asker.askAside {} != nil }
  }

  @Test func `many calls from many places are each made once, and those of a queue in their order`() async {
    let (noted, all) = (Noted(), Noted())
    let queue = BlockingQueue()
    await withTaskGroup(of: Void.self) { group in
      for number in 0..<500 { queue.start { noted.numbers.withLock { $0.append(number) } } }
      for number in 0..<500 {
        group.addTask { BlockingCalls.start { all.numbers.withLock { $0.append(number) } } }
      }
    }
    queue.finish()
    #expect(noted.numbers.withLock { $0 } == Array(0..<500))
    while all.numbers.withLock({ $0.count }) < 500 { await Task.yield() }
    #expect(all.numbers.withLock { Set($0) }.count == 500)
  }
}

/// Threads for calls: no more than so many, and no call is lost.
@Suite(.timeLimit(.minutes(2))) struct CallThreadsTests {
  private final class Noted: Sendable {
    let order = Mutex<[Int]>([])
    let mayGo = Atomic(false)
    let calling = Atomic(0)
    let most = Atomic(0)
  }

  @Test func `calls beyond the threads wait for one, and all are made`() throws {
    let noted = Noted()
    let threads = CallThreads("test-calls", most: 3)
    for number in 0..<100 {
      let isServed = threads.start {
        let calling = noted.calling.add(1, ordering: .relaxed).newValue
        while true {
          let most = noted.most.load(ordering: .relaxed)
          if calling <= most { break }
          if noted.most.compareExchange(expected: most, desired: calling, ordering: .relaxed).exchanged { break }
        }
        while !noted.mayGo.load(ordering: .acquiring) { usleep(200) }
        noted.order.withLock { $0.append(number) }
        noted.calling.subtract(1, ordering: .relaxed)
      }
      #expect(isServed)
    }
    while noted.calling.load(ordering: .relaxed) < 3 { usleep(200) }
    #expect(threads.due == 97)
    noted.mayGo.store(true, ordering: .releasing)
    while threads.areThere { usleep(200) }
    #expect(noted.order.withLock { $0.sorted() } == Array(0..<100))
    #expect(noted.most.load(ordering: .relaxed) == 3)
  }

  @Test(.enabled(if: !hasAddressSanitizer, "AddressSanitizer ends a process that is refused memory"))
  func `a call for which there was no thread is made with the next one`() async {
    await #expect(processExitsWith: .success) {
      let noted = Noted()
      let threads = CallThreads("test-calls", most: 3)
      let queue = BlockingQueue(on: threads)
      // No memory for a thread's stack: none can be had.
      var limit = rlimit()
      guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 else { exit(2) }
      var none = limit
      none.rlim_cur = 1 << 20
      guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &none) == 0 else { exit(3) }
      queue.start { noted.calling.add(1, ordering: .relaxed) }
      queue.start { noted.calling.add(1, ordering: .relaxed) }
      let isThere = threads.areThere
      guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 else { exit(4) }
      guard !isThere, noted.calling.load(ordering: .relaxed) == 0 else { exit(5) }
      queue.start { noted.calling.add(1, ordering: .relaxed) }
      var patience = 20_000
      while noted.calling.load(ordering: .relaxed) < 3, patience > 0 {
        usleep(1000)
        patience -= 1
      }
      exit(patience > 0 ? 0 : 6)
    }
  }
}
