import LibeventConcurrency
import Testing

/// Tasks that wait at a gate of this actor's loop and write down the order in which they were let go.
private actor Waiters {
  let loop: LoopExecutor
  let gate = Gate()
  var order: [Int] = []
  init(_ loop: LoopExecutor) { self.loop = loop }
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  func wait(_ number: Int) async {
    await gate.pass()
    order.append(number)
    #expect(loop.isOnLoop)
  }
  func open() -> Bool { gate.open() }
  func openAll() { gate.openAll() }
  var waiting: Int { gate.waiting }
}

@Suite(.timeLimit(.minutes(2))) struct GateTests {
  @Test func `tasks pass a gate one by one, first in, first out`() async throws {
    let waiters = Waiters(try LoopExecutor(name: "test"))
    await withTaskGroup(of: Void.self) { group in
      for number in 0..<10 {
        group.addTask { await waiters.wait(number) }
        while await waiters.waiting <= number { await Task.yield() }
      }
      for passed in 1...10 {
        #expect(await waiters.open())
        while await waiters.order.count < passed { await Task.yield() }
      }
    }
    #expect(await waiters.order == Array(0..<10))
  }

  @Test func `a gate keeps a task until it is opened, however long the loop turns`() async throws {
    let waiters = Waiters(try LoopExecutor(name: "test"))
    let task = Task { await waiters.wait(1) }
    while await waiters.waiting == 0 { await Task.yield() }
    for _ in 0..<10_000 { _ = await waiters.waiting }
    #expect(await waiters.order.isEmpty)
    await waiters.openAll()
    await task.value
    #expect(await waiters.order == [1])
  }

  @Test func `opening an empty gate lets nobody through later`() async throws {
    let waiters = Waiters(try LoopExecutor(name: "test"))
    #expect(await waiters.open() == false)
    let task = Task { await waiters.wait(1) }
    while await waiters.waiting == 0 { await Task.yield() }
    #expect(await waiters.order.isEmpty)
    #expect(await waiters.open())
    await task.value
  }
}
