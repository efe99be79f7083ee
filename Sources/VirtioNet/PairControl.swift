internal import LibeventConcurrency
internal import Netdev
internal import Virtio

/// What the driver tells a queue pair, whatever the format of its rings. On the pair's loop.
protocol PairControl: AnyObject {
  /// The reset has begun.
  func goQuiet()
  /// DRIVER_OK is set.
  func goLive()
  /// The device is lost.
  func suspend()
  /// Makes rings for the device that comes back, and tells the transport of them.
  ///
  /// - Throws: what the transport answers.
  func layAnew(_ rings: SharedRings) throws(NetworkDeviceError)
  /// The device uses the new rings. Says how many buffers are in quarantine since.
  func resume(_ terms: ResumeTerms) -> Int
  /// The device of this loss is gone at last.
  func endQuarantine(_ generation: Int)
}

/// Where the driver finds a queue pair.
struct PairReference: @unchecked Sendable {
  // Proof of Sendable: `pair` is used in calls on `loop` only, which is the loop it belongs to.
  let pair: any PairControl
  let loop: LoopExecutor
}

/// The transport's doorbells for a pair. They cannot be copied, so that ringing borrows them and retains nothing.
struct Doorbells: ~Copyable {
  let receive: any VirtioDoorbell
  let transmit: any VirtioDoorbell
  /// The device takes its turns on the pair's loop.
  let areOnLoop: Bool

  init(receive: any VirtioDoorbell, transmit: any VirtioDoorbell) {
    self.receive = receive
    self.transmit = transmit
    areOnLoop = receive.isOnLoop && transmit.isOnLoop
  }

  borrowing func kickReceive() { receive.kick() }
  borrowing func kickTransmit() { transmit.kick() }
  borrowing func disconnect() {
    receive.disconnect()
    transmit.disconnect()
  }
}

/// What a queue pair is made of beside rings.
struct PairParts {
  let index: Int
  let agreed: VirtioNetDriver.Agreed
  let memory: VirtioNetDriver.Memory
  let slots: SlotTable
  let signal: QueueSignal
  let transport: any VirtioTransport
  let loop: LoopExecutor
}

// The queue pair as a queue knows it: one concrete class a format, each requirement one line. A generic class that conformed by
// itself would be called through unspecialised witnesses, at twice the cost; the calls below are resolved and compiled for the
// format.

/// A queue pair of split rings.
final class SplitQueuePair: QueueDriver {
  let pair: VirtioQueuePair<SplitDriverRing>
  init(_ pair: VirtioQueuePair<SplitDriverRing>) { self.pair = pair }

  var transmitCapacity: Int { pair.transmitCapacity }
  var receiveRoom: Int { pair.receiveRoom }
  var isServedHere: Bool { pair.isServedHere }
  var statistics: QueueDriverStatistics { pair.statistics }

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int { try pair.transmit(entries) }
  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    try pair.takeReleased(into: &entries)
  }
  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    try pair.takeReceived(into: &entries)
  }
  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int { try pair.post(slots) }
  func ring() { pair.ring() }
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool { pair.arm(received: received, released: released) }
  func disarm() { pair.disarm() }
  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    pair.drain(transmitted: transmitted, posted: posted)
  }
}

/// A queue pair of packed rings.
final class PackedQueuePair: QueueDriver {
  let pair: VirtioQueuePair<PackedDriverRing>
  init(_ pair: VirtioQueuePair<PackedDriverRing>) { self.pair = pair }

  var transmitCapacity: Int { pair.transmitCapacity }
  var receiveRoom: Int { pair.receiveRoom }
  var isServedHere: Bool { pair.isServedHere }
  var statistics: QueueDriverStatistics { pair.statistics }

  func transmit(_ entries: Span<FrameEntry>) throws(NetworkDeviceError) -> Int { try pair.transmit(entries) }
  func takeReleased(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    try pair.takeReleased(into: &entries)
  }
  func takeReceived(into entries: inout MutableSpan<FrameEntry>) throws(NetworkDeviceError) -> Int {
    try pair.takeReceived(into: &entries)
  }
  func post(_ slots: Span<UInt32>) throws(NetworkDeviceError) -> Int { try pair.post(slots) }
  func ring() { pair.ring() }
  func arm(received: Bool, released: ReleaseInterrupt) -> Bool { pair.arm(received: received, released: released) }
  func disarm() { pair.disarm() }
  func drain(transmitted: (FrameEntry) -> Void, posted: (UInt32) -> Void) {
    pair.drain(transmitted: transmitted, posted: posted)
  }
}
