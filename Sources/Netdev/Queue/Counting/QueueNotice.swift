internal import Logging

/// What a queue has to say to the log: things that work, and cost more than the program means to pay. Each once.
enum QueueNotice: Sendable {
  /// So many packets were copied to be changed.
  case copies(UInt64)
  /// A packet that would fit into a buffer lay on the heap, and was copied to be sent.
  case heapPacket
  /// In so many turns the pool had no buffer to receive into.
  case starving(UInt64)

  /// Copies that are worth a word.
  static var manyCopies: UInt64 { 1000 }
  /// Turns without buffers that are.
  static var manyStarvedTurns: UInt64 { 1000 }

  var level: Logger.Level { if case .copies = self { .debug } else { .warning } }

  var message: Logger.Message {
    switch self {
    case .copies(let count):
      "\(count) packets were copied to be changed, because somebody else held them: hand packets on with `consume`, take them `consuming`"
    case .heapPacket:
      "a packet lay on the heap, because the pool had no buffer for it, and was copied to be sent: keep fewer packets, or open the device with `keptPackets`"
    case .starving(let turns):
      "in \(turns) turns there was no buffer to receive into: packets that are kept, or slow to be sent, hold them; keep fewer, or open the device with `keptPackets`"
    }
  }
}

extension QueueTurn {
  /// Tells of copies when they have become many.
  @inline(never) func noteManyCopies() {
    copiesToTell = .max
    tell(.copies(statistics.copiedToChange))
  }

  /// A packet from elsewhere is copied into the pool.
  func noteAdoption(of packet: borrowing Packet) {
    guard !hasToldOfHeap, !packet.isInPool, packet.count <= pool.firstBufferRoom else { return }
    hasToldOfHeap = true
    tell(.heapPacket)
  }

  /// The pool has no buffer for the receive ring in this turn.
  func noteStarving() {
    statistics.starved &+= 1
    if statistics.starved == QueueNotice.manyStarvedTurns { tell(.starving(statistics.starved)) }
  }
}
