import ExampleSupport
import Netdev
import NetdevProgram
import Synchronization

/// Counts frames that one device receives and the other does not take: they are too long.
final class Unfit: Sendable {
  private let counts = Mutex<[ObjectIdentifier: Int]>([:])

  /// True when `output` takes the packet; otherwise it is counted.
  func admits(_ packet: borrowing Packet, _ output: NetworkQueue) -> Bool {
    if output.canSend(packet) { return true }
    count(output)
    return false
  }

  /// One more that this queue did not take.
  func count(_ output: NetworkQueue) { counts.withLock { $0[ObjectIdentifier(output), default: 0] += 1 } }

  /// Frames that this device did not take.
  func count(for device: NetworkDevice) -> Int {
    counts.withLock { counts in device.queues.reduce(0) { $0 + counts[ObjectIdentifier($1), default: 0] } }
  }
}

/// Prints how many frames went one way, and how many were dropped and why.
func summarize(from input: NetworkDevice, to output: NetworkDevice, _ unfit: Unfit) {
  let received = input.statistics
  let sent = output.statistics
  // Buffers of frames that the device dropped are released, too; the totals say why.
  let released = sent.reduce(0) { $0 + $1.packetsReleased }
  let dropped = output.deviceDrops.reduce(0) { $0 + $1.totalTransmitted }
  Output.standard.print(
    "\(input.information.name) -> \(output.information.name): \(released - min(released, dropped)) frames; "
      + "dropped: \(unfit.count(for: output)) too long, "
      + "\(received.reduce(0) { $0 + $1.driver.receiveDropsLength }) received too long, "
      + "\(received.reduce(0) { $0 + $1.driver.receiveDropsSegmentation }) of several frames, "
      + "\(received.reduce(0) { $0 + $1.driver.receiveDropsChecksum }) with a bad checksum field, "
      + "\(sent.reduce(0) { $0 + $1.packetsFailed }) not sent, or lost with the device; "
      + "copied: \(sent.reduce(0) { $0 + $1.copiedToSend })")
}
