public import Virtio

/// Where the ring of a virtqueue lies, and what was negotiated for it. The three areas are named by the addresses that the device
/// knows, in the format that follows from the features.
public struct VirtioQueuePlacement: Sendable, Hashable {
  /// Position of the virtqueue, from 0. A network device's pair n receives at 2n and transmits at 2n + 1, and its control virtqueue lies
  /// behind the queues of all pairs that there could be if MQ was negotiated, and else behind those of the first (VIRTIO 1.4
  /// §5.1.2).
  public let index: Int
  /// Number of descriptors.
  public let size: Int
  /// Address of the descriptors.
  public let descriptors: UInt64
  /// Address of the driver area: the available ring, or event suppression of a packed ring.
  public let driver: UInt64
  /// Address of the device area: the used ring, or event suppression of a packed ring.
  public let device: UInt64
  /// The negotiated features.
  public let features: FeatureSet

  /// A ring whose three areas lie in one piece at `address`, as `layout` places them.
  public init(index: Int, _ layout: RingLayout, at address: UInt64, features: FeatureSet) {
    self.index = index
    size = Int(layout.size)
    descriptors = address
    driver = address &+ UInt64(layout.driverOffset)
    device = address &+ UInt64(layout.deviceOffset)
    self.features = features
  }

  /// Split or packed.
  public var format: RingFormat { RingFormat(features) }

  /// The queue pair that it belongs to.
  package var pair: Int { index / 2 }
  /// The other one of that pair.
  package var sibling: Int { index ^ 1 }
  /// The driver sends by it.
  package var isTransmit: Bool { index % 2 == 1 }
}
