import Netdev
import Synchronization

/// Counts frames that one device receives and the other does not take.
final class TooLong: Sendable {
  private let counts = Mutex<[ObjectIdentifier: Int]>([:])

  /// True when `output` takes the packet; otherwise it is counted.
  func fits(_ packet: borrowing Packet, _ output: NetworkQueue) -> Bool {
    if packet.count <= output.maximumFrameLength { return true }
    counts.withLock { $0[ObjectIdentifier(output), default: 0] += 1 }
    return false
  }

  /// Frames that were too long for this device.
  func count(for device: NetworkDevice) -> Int {
    counts.withLock { counts in device.queues.reduce(0) { $0 + counts[ObjectIdentifier($1), default: 0] } }
  }
}

/// Prints how many frames went one way, and how many were dropped and why.
func summarize(from input: NetworkDevice, to output: NetworkDevice, _ tooLong: TooLong) {
  let received = input.statistics
  let sent = output.statistics
  print(
    "\(input.information.name) -> \(output.information.name): \(sent.reduce(0) { $0 + $1.packetsReleased }) frames; "
      + "dropped: \(tooLong.count(for: output)) too long, "
      + "\(received.reduce(0) { $0 + $1.driver.receiveDrops }) with a bad header, "
      + "\(sent.reduce(0) { $0 + $1.packetsFailed }) not sent at the end; "
      + "copied: \(sent.reduce(0) { $0 + $1.copiedToSend })")
}
