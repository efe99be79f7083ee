import LibeventConcurrency
import Testing

/// Tasks at places of a row, on one loop.
private actor Waiting {
  let loop: LoopExecutor
  let row = GateRow()
  var arrived = 0
  var passed: [UInt32] = []
  init(_ loop: LoopExecutor) { self.loop = loop }
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  func take() -> UInt32 { row.take() }

  func wait(at place: UInt32) async {
    arrived += 1
    row.approach(place)
    await row.pass()
    #expect(loop.isOnLoop)
    #expect(row.isOpen(place))
    passed.append(place)
  }

  func open(_ places: [UInt32]) { for place in places { row.open(place) } }
  func putBack(_ place: UInt32) { row.putBack(place) }
  func isOpen(_ place: UInt32) -> Bool { row.isOpen(place) }
}

@Suite(.timeLimit(.minutes(2))) struct GateRowTests {
  @Test func `each task goes on when its own place is opened, and no other does`() async throws {
    let waiting = Waiting(try LoopExecutor(name: "test"))
    var places: [UInt32] = []
    // More than a row begins with.
    for _ in 0..<300 { places.append(await waiting.take()) }
    #expect(Set(places).count == 300 && !places.contains(0))
    await withTaskGroup(of: Void.self) { group in
      for place in places { group.addTask { await waiting.wait(at: place) } }
      while await waiting.arrived < 300 { await Task.yield() }
      for _ in 0..<1000 { await Task.yield() }
      #expect(await waiting.passed.isEmpty)
      for (done, place) in places.reversed().enumerated() {
        await waiting.open([place])
        while await waiting.passed.count <= done { await Task.yield() }
      }
    }
    #expect(await waiting.passed == places.reversed())
  }

  @Test func `a place that was opened before its task comes lets it through, until it is put back`() async throws {
    let waiting = Waiting(try LoopExecutor(name: "test"))
    let place = await waiting.take()
    #expect(await !waiting.isOpen(place))
    await waiting.open([place, 0, 1_000_000])
    await waiting.wait(at: place)
    await waiting.wait(at: place)
    #expect(await waiting.passed == [place, place])
    await waiting.putBack(place)
    #expect(await waiting.take() == place)
    #expect(await !waiting.isOpen(place))
    let task = Task { await waiting.wait(at: place) }
    for _ in 0..<1000 { await Task.yield() }
    #expect(await waiting.passed.count == 2)
    await waiting.open([place])
    await task.value
  }

  @Test func `those whose places are opened together go on in that order`() async throws {
    let waiting = Waiting(try LoopExecutor(name: "test"))
    var places: [UInt32] = []
    for _ in 0..<64 { places.append(await waiting.take()) }
    await withTaskGroup(of: Void.self) { group in
      for place in places { group.addTask { await waiting.wait(at: place) } }
      while await waiting.arrived < 64 { await Task.yield() }
      await waiting.open(places.reversed())
    }
    #expect(await waiting.passed == places.reversed())
  }
}
