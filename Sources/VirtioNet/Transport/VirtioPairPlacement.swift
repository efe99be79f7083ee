public import Virtio

/// Where the rings of a pair lie, and what was negotiated for them.
public struct VirtioPairPlacement: Sendable, Hashable {
  /// A ring's three areas by the addresses that the device knows, in the format that follows from the features.
  public struct Ring: Sendable, Hashable {
    /// Descriptors.
    public let size: Int
    /// Address of the descriptors.
    public let descriptors: UInt64
    /// Address of the driver area: the available ring, or event suppression of a packed ring.
    public let driver: UInt64
    /// Address of the device area: the used ring, or event suppression of a packed ring.
    public let device: UInt64

    /// A ring whose three areas lie in one piece at `address`, as `layout` places them.
    public init(_ layout: RingLayout, at address: UInt64) {
      size = Int(layout.size)
      descriptors = address
      driver = address &+ UInt64(layout.driverOffset)
      device = address &+ UInt64(layout.deviceOffset)
    }
  }

  /// Position of the pair, from 0.
  public let index: Int
  /// The receive ring, queue 2 × index.
  public let receive: Ring
  /// The transmit ring, queue 2 × index + 1.
  public let transmit: Ring
  /// The negotiated features.
  public let features: FeatureSet
}
