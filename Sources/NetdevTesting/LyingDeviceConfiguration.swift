internal import Netdev
internal import Synchronization
public import Virtio
public import VirtioNet

extension LyingDevice {
  /// What a lying device offers and how it behaves before its rings exist.
  public struct Configuration: Sendable {
    /// Features offered.
    public var features: FeatureSet = [.version1, .mac, .status, .mrgRxbuf, .indirectDesc, .eventIndex]
    /// Largest queue size offered; nil when the device does not say.
    public var maximumQueueSize: Int? = 256
    /// The configuration space, as long as the device says it is.
    public var space = Space.bytes()
    /// Leaves FEATURES_OK out when the driver sets it.
    public var refusesFeatures = false
    /// How often the MAC address changes in the middle of being read; each change is seen in the generation.
    public var changesDuringRead = 0
    /// Who switches queue pairs.
    public var pairSwitching = FeatureSet.PairSwitching.transport
    /// What it cannot be reached without, whether or not it is offered.
    public var requiredFeatures: FeatureSet = []
    /// Virtqueues that can be attached; nil when the transport does not say.
    public var maximumQueues: Int?
    /// What the driver does when the device is lost; nil lets the queues break.
    public var recovery: VirtioRecovery?

    /// An honest device with everything that the driver understands, apart from several queue pairs.
    public init() {}
  }

  /// Makes the bytes of configuration spaces (VIRTIO 1.4 §5.1.4).
  public enum Space {
    /// The configuration space of these fields, 17 bytes long, or cut to `length`.
    public static func bytes(
      mac: [UInt8] = [2, 0, 0, 0, 0, 1], status: UInt16 = 1, pairs: UInt16 = 1, mtu: UInt16 = 1500, length: Int = 17
    ) -> [UInt8] {
      var all = mac
      for field in [status, pairs, mtu] { all += [UInt8(field & 0xff), UInt8(field >> 8)] }
      all += [UInt8](repeating: 0xff, count: max(0, length - all.count))
      return Array(all.prefix(length))
    }
  }
}

/// A configuration space that changes while it is read. One reader at a time.
final class LyingConfigReader: DeviceConfigReader {
  private var bytes: [UInt8]
  private var changesLeft: Int
  private var changes: UInt32 = 0

  init(_ configuration: LyingDevice.Configuration) {
    bytes = configuration.space
    changesLeft = configuration.changesDuringRead
  }

  var length: Int { bytes.count }
  /// Eight bits, as on PCI.
  var generation: UInt32 { changes & 0xff }

  func read8(at offset: Int) -> UInt8 {
    if offset == 3, changesLeft > 0 {
      changesLeft -= 1
      changes &+= 1
      // Every byte changes at once: a reader that mixes two addresses shows it.
      for position in 0..<6 { bytes[position] = UInt8(truncatingIfNeeded: changes << 1) }
    }
    return bytes[offset]
  }

  func read16(at offset: Int) -> UInt16 { UInt16(read8(at: offset)) | UInt16(read8(at: offset + 1)) << 8 }
  func read32(at offset: Int) -> UInt32 { UInt32(read16(at: offset)) | UInt32(read16(at: offset + 2)) << 16 }
}
