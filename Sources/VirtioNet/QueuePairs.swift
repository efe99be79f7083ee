internal import Netdev
internal import Virtio

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
