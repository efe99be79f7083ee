internal import LibeventConcurrency

/// Where a device's life keeps one of its queue pairs, from before the pair is made until the device is closed: what the pair is told,
/// it is told on its loop, in order, whether the loop has come to making it or not.
final class QueuePlace: Sendable {
  let loop: LoopExecutor
  private let index: Int
  private let pool: PacketPool
  private let maximumFrameLength: Int
  // Proof: changed on the loop alone; read there, and by the life between the answer that the pair is made and the end.
  nonisolated(unsafe) private var made: NetworkQueue?

  init(index: Int, loop: LoopExecutor, pool: PacketPool, maximumFrameLength: Int) {
    self.index = index
    self.loop = loop
    self.pool = pool
    self.maximumFrameLength = maximumFrameLength
  }

  /// The pair, if it is made: on the loop, and for the life when it has been told so.
  var queue: NetworkQueue? { unsafe made }

  /// On the loop: has the driver make its part, and the queue of it turn with the loop. A queue that cannot join its loop is here all
  /// the same: its buffers are the device's until it ends.
  func fill(
    by driver: any NetworkDriver, busyPoll: Duration, tell: @escaping @Sendable (QueueNotice) -> Void,
    onBroken: @escaping @Sendable (NetworkDeviceError) -> Void
  ) throws(NetworkDeviceError) {
    let signals = SignalTarget()
    let part = try driver.makeQueue(
      index: index, loop: loop, slots: SlotTable(pool), signal: QueueSignal(signals))
    let queue = NetworkQueue(
      part, signals: signals, index: index, loop: loop, pool: pool, maximumFrameLength: maximumFrameLength,
      busyPoll: busyPoll, tell: tell, onBroken: onBroken)
    unsafe made = queue
    try queue.start()
  }

  /// On the loop: lets go of the queue, which may be the last reference to it, and with it to the loop.
  func empty() { unsafe made = nil }
}
