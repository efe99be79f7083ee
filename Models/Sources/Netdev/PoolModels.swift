package import Explorer
internal import LibeventConcurrency

/// `SharedSlots` and `PoolQueues`, the library's own sources, between threads that drop packets and queues that want buffers.
package enum PoolModels {
  /// All of them.
  package static var all: [Model] { [pushes, reuse, batch, wish, claim, turns, kept] }

  private static func pop(_ pool: PacketPool, leaving: Int = 0) -> UInt32? {
    var slot: UInt32 = 0
    return pool.shared.pop(into: &slot, max: 1, leaving: leaving) == 1 ? slot : nil
  }

  /// Slots 0 and 1, by a thread each.
  private static func dropTwo(of pool: PacketPool, _ explorer: Explorer) {
    for slot in 0..<2 {
      explorer.thread("dropper \(slot)") {
        pool.records[slot].contents.value = 1
        pool.shared.push(UInt32(slot))
      }
    }
  }

  /// Two threads drop a packet each; a third takes what is there, and is the only owner of what it takes.
  static var pushes: Model {
    Model("SharedSlots: two push, one pops") { explorer in
      let pool = PacketPool(3)
      pool.shared.push(2)
      var taken: [UInt32] = []
      dropTwo(of: pool, explorer)
      explorer.thread("taker") {
        for _ in 0..<3 {
          guard let slot = pop(pool) else { continue }
          pool.records[Int(slot)].contents.value = 2
          taken.append(slot)
        }
      }
      return {
        while let slot = pop(pool) { taken.append(slot) }
        explorer.require(taken.sorted() == [0, 1, 2], "of slots 0, 1 and 2 there are \(taken.sorted())")
      }
    }
  }

  /// A slot that is taken and given back while another thread is about to take it: the link below it has changed.
  static var reuse: Model {
    Model("SharedSlots: taken and given back meanwhile") { explorer in
      let pool = PacketPool(2)
      pool.shared.push(1)
      pool.shared.push(0)
      var held: [[UInt32]] = [[], []]
      explorer.thread("who takes two and gives one back") {
        guard let first = pop(pool) else { return }
        pool.records[Int(first)].contents.value = 1
        if let second = pop(pool) { held[0].append(second) }
        pool.records[Int(first)].contents.value = 2
        pool.shared.push(first)
      }
      explorer.thread("who takes one") {
        guard let slot = pop(pool) else { return }
        pool.records[Int(slot)].contents.value = 3
        held[1].append(slot)
      }
      return {
        var all = held[0] + held[1]
        while let slot = pop(pool) { all.append(slot) }
        explorer.require(all.sorted() == [0, 1], "of slots 0 and 1 there are \(all.sorted())")
      }
    }
  }

  /// A batch is taken while packets are dropped: all of it, or none, and each slot once.
  static var batch: Model {
    Model("SharedSlots: two at once while others push") { explorer in
      let pool = PacketPool(4)
      pool.shared.push(3)
      pool.shared.push(2)
      var taken: [UInt32] = []
      dropTwo(of: pool, explorer)
      explorer.thread("taker") {
        for _ in 0..<2 {
          _ = pool.shared.pop(exactly: 2, leaving: 0) { slot in
            pool.records[Int(slot)].contents.value = 2
            taken.append(slot)
          }
        }
      }
      return {
        explorer.require(taken.count.isMultiple(of: 2), "half a batch: \(taken)")
        while let slot = pop(pool) { taken.append(slot) }
        explorer.require(taken.sorted() == [0, 1, 2, 3], "of slots 0 to 3 there are \(taken.sorted())")
      }
    }
  }

  private static func list(
    _ pool: PacketPool, _ loop: LoopExecutor, _ name: String, _ explorer: Explorer
  ) -> UnsafeMutablePointer<LocalSlots> {
    pool.queues.add(loop, QueueCounters()) {
      let list = UnsafeMutablePointer<LocalSlots>.allocate(capacity: 1)
      list.initialize(to: LocalSlots(pool: .passUnretained(pool)))
      explorer.share(list, bytes: MemoryLayout<LocalSlots>.size, "the list of \(name)")
      return list
    }
  }

  /// Takes what there is, else asks and looks again, and sleeps until it is woken.
  private static func starve(_ loop: LoopExecutor, _ explorer: Explorer, ask: () -> Void, take: () -> Bool) {
    while !explorer.isOver {
      if take() { break }
      ask()
      if take() { break }
      guard loop.sleep() else { return }
    }
  }

  /// As `QueueTurn.replenish`.
  private static func starve(
    _ pool: PacketPool, _ loop: LoopExecutor, _ list: UnsafeMutablePointer<LocalSlots>, _ explorer: Explorer,
    take: () -> Bool
  ) {
    starve(loop, explorer, ask: { pool.queues.wish(0, for: list) }, take: take)
    pool.queues.withdraw(list)
  }

  /// As `QueueTurn.claimBuffers` and `serveBuffers`: a sender needs so many buffers at once, and has its turn.
  private static func claim(
    _ buffers: Int, _ ticket: UInt64, _ pool: PacketPool, _ loop: LoopExecutor,
    _ list: UnsafeMutablePointer<LocalSlots>, _ explorer: Explorer
  ) {
    starve(loop, explorer, ask: { pool.queues.claim(buffers, ticket: ticket, isResting: false, for: list) }) {
      pool.shared.pop(exactly: buffers, leaving: pool.queues.claimed(before: ticket)) { _ in }
    }
    pool.queues.unclaim(list)
  }

  /// A queue starves for one buffer, and a packet is dropped somewhere.
  static var wish: Model {
    Model("PoolQueues: a queue starves while two packets are dropped") { explorer in
      let pool = PacketPool(2)
      let loop = LoopExecutor("the queue", identity: 1)
      let list = list(pool, loop, "the queue", explorer)
      var taken: [UInt32] = []
      for slot in 0..<2 {
        explorer.thread("dropper \(slot)") {
          pool.records[slot].contents.value = 1
          pool.giveBack(UInt32(slot))
        }
      }
      explorer.thread("queue") {
        starve(pool, loop, list, explorer) {
          guard let slot = pop(pool) else { return false }
          pool.records[Int(slot)].contents.value = 2
          taken.append(slot)
          return true
        }
      }
      return {
        explorer.require(
          !explorer.isAsleep("queue"), "the queue sleeps for a buffer, and \(pool.shared.count) are free")
      }
    }
  }

  /// A sender needs two buffers at once, and claims them.
  static var claim: Model {
    Model("PoolQueues: a sender waits for two buffers") { explorer in
      let pool = PacketPool(2)
      let loop = LoopExecutor("the queue", identity: 1)
      let list = list(pool, loop, "the queue", explorer)
      for slot in 0..<2 {
        explorer.thread("dropper \(slot)") { pool.giveBack(UInt32(slot)) }
      }
      explorer.thread("queue") { claim(2, 0, pool, loop, list, explorer) }
      return {
        explorer.require(
          !explorer.isAsleep("queue"), "the sender sleeps for two buffers, and \(pool.shared.count) are free")
        explorer.require(!pool.queues.isShort && pool.queues.claimed == 0, "a claim is left behind")
      }
    }
  }

  /// Senders of two queues wait for a buffer each: each gets one, in whichever order they come.
  static var turns: Model {
    Model("PoolQueues: senders of two queues have their turns") { explorer in
      let pool = PacketPool(2)
      let loops = [LoopExecutor("the first", identity: 1), LoopExecutor("the second", identity: 2)]
      let lists = [list(pool, loops[0], "the first", explorer), list(pool, loops[1], "the second", explorer)]
      pool.shared.push(1)
      explorer.thread("dropper") { pool.giveBack(0) }
      for (number, name) in ["first", "second"].enumerated() {
        explorer.thread(name) { claim(1, UInt64(number), pool, loops[number], lists[number], explorer) }
      }
      return {
        for name in ["first", "second"] {
          explorer.require(
            !explorer.isAsleep(name), "the \(name) sleeps for a buffer, and \(pool.shared.count) are free")
        }
        explorer.require(!pool.queues.isShort && pool.queues.claimed == 0, "a claim is left behind")
      }
    }
  }

  /// A queue goes to sleep with a buffer in its own list while another starves for it: as `QueueTurn.giveUpIdle` and `refill`.
  static var kept: Model {
    Model("PoolQueues: one sleeps with a buffer, another starves") { explorer in
      let pool = PacketPool(1)
      let loops = [LoopExecutor("the rich", identity: 1), LoopExecutor("the poor", identity: 2)]
      let rich = list(pool, loops[0], "the rich", explorer)
      let poor = list(pool, loops[1], "the poor", explorer)
      rich.pointee.slots[0] = 0
      rich.pointee.count = 1
      explorer.thread("rich") {
        while !explorer.isOver {
          if pool.queues.isShort, rich.pointee.count > 0 { pool.spill(rich, keeping: 0) }
          if rich.pointee.count != Int(rich.pointee.kept), pool.queues.keep(rich.pointee.count, in: rich) { continue }
          guard loops[0].sleep() else { return }
        }
      }
      explorer.thread("poor") {
        starve(pool, loops[1], poor, explorer) { pop(pool) != nil }
      }
      return {
        explorer.require(!explorer.isAsleep("poor"), "one queue sleeps for a buffer, and another with one")
      }
    }
  }
}
