import LibeventConcurrency
import Netdev
import PacketFormats

/// What to send: frames of a kind of their own, each with the time at which it was.
struct Traffic {
  /// The frames' length in bytes.
  var size: Int
  /// How long to send.
  var duration: Duration
  /// Frames a second, of all queues; 0 for as many as the device takes.
  var rate: Double

  private static let magic: UInt64 = 0x4E45_5444_4556_5447
  private static let header = EthernetHeader(
    destination: .broadcast, source: MACAddress(2, 0, 0, 0, 0, 1), etherType: EtherType(rawValue: 0x88B5))

  /// Sends the share of one of several queues; returns how many frames.
  func send(through queue: isolated NetworkQueue, of queues: Int) async throws -> Int {
    let start = queue.clock.now
    var sent = 0
    while true {
      let elapsed = start.duration(to: queue.clock.now)
      guard elapsed < duration else { return sent }
      let due = rate > 0 ? Int(elapsed / .seconds(1) * rate / Double(queues)) - sent : 32
      guard due > 0 else {
        try await queue.sleep(for: .milliseconds(1))
        continue
      }
      var burst = try queue.makeBurst(count: min(due, 32), length: size)
      let now = queue.clock.now.nanoseconds
      try burst.forEach { frame throws(PacketFormatError) in
        try Self.header.encode(into: &frame)
        try frame.storeUInt64(Self.magic, at: 16)
        try frame.storeUInt64(now, at: 24)
      }
      sent += burst.count
      try await queue.submit(burst)
    }
  }

  /// Receives until the queue ends or the task is cancelled; returns how long the frames were under way.
  static func receive(from queue: isolated NetworkQueue) async -> LatencyHistogram {
    var times = LatencyHistogram()
    while let burst = await queue.receiveBurst() {
      let now = queue.clock.now.nanoseconds
      burst.forEachFrame { frame in
        guard (try? frame.loadUInt64(at: 16)) == magic, let sent = try? frame.loadUInt64(at: 24) else { return }
        times.add(nanoseconds: now - min(sent, now))
      }
    }
    return times
  }
}
