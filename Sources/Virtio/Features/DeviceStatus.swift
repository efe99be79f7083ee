/// The device status field: how far the driver has come with the device (VIRTIO 1.4 §2.1).
@frozen
public struct DeviceStatus: OptionSet, Hashable, Sendable {
  /// The bits of the field; 0 is the reset state.
  public let rawValue: UInt8

  /// The status of these bits.
  @inlinable
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// The driver has noticed the device.
  @inlinable public static var acknowledge: DeviceStatus { DeviceStatus(rawValue: 1) }
  /// The driver knows how to drive the device.
  @inlinable public static var driver: DeviceStatus { DeviceStatus(rawValue: 2) }
  /// The driver is ready; the device may be used.
  @inlinable public static var driverOK: DeviceStatus { DeviceStatus(rawValue: 4) }
  /// The features are settled; to be read back, for the device may refuse them.
  @inlinable public static var featuresOK: DeviceStatus { DeviceStatus(rawValue: 8) }
  /// The device is suspended.
  @inlinable public static var suspend: DeviceStatus { DeviceStatus(rawValue: 16) }
  /// The device has met an error from which only a reset leads back.
  @inlinable public static var needsReset: DeviceStatus { DeviceStatus(rawValue: 64) }
  /// The driver has given up on the device.
  @inlinable public static var failed: DeviceStatus { DeviceStatus(rawValue: 128) }
}
