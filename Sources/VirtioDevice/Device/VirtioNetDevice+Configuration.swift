import PacketFormats
import Synchronization
public import Virtio

/// The configuration space (VIRTIO 1.4 §5.1.4), as the driver reads it: 24 bytes, fields of absent features zero.
///
/// The fields that change are the status and, where the driver has set it, the address; the generation changes with them (§2.5.2).
extension VirtioNetDevice: DeviceConfigReader {
  /// Bytes of the configuration space.
  public var length: Int { 24 }

  /// Changes whenever a field has changed.
  public var generation: UInt32 { state.withLock { $0.generation } }

  /// The byte at `offset`; zero beyond the end.
  public func read8(at offset: Int) -> UInt8 {
    guard offset >= 0, offset < length else { return 0 }
    switch offset {
    case 0..<6: return macAddress[offset]
    case 6..<8: return Self.byte(offset - 6, of: linkStatus)
    case 8..<10: return Self.byte(offset - 8, of: maximumPairs > 1 ? UInt16(truncatingIfNeeded: maximumPairs) : 0)
    case 10..<12: return Self.byte(offset - 10, of: mtu ?? 0)
    default: return 0
    }
  }

  /// The 16-bit field at `offset`.
  public func read16(at offset: Int) -> UInt16 { UInt16(read8(at: offset)) | UInt16(read8(at: offset + 1)) << 8 }

  /// The 32-bit field at `offset`.
  public func read32(at offset: Int) -> UInt32 { UInt32(read16(at: offset)) | UInt32(read16(at: offset + 2)) << 16 }

  private static func byte(_ index: Int, of field: UInt16) -> UInt8 {
    UInt8(truncatingIfNeeded: field >> UInt16(8 * index))
  }

  private var linkStatus: UInt16 {
    let (isLinkUp, wantsAnnouncement) = state.withLock { ($0.isLinkUp, $0.wantsAnnouncement) }
    var status: NetConfig.Status = isLinkUp ? .linkUp : []
    if wantsAnnouncement { status.insert(.announce) }
    return status.rawValue
  }

  /// Whether the link is up, as the driver reads it. Setting it notifies a running driver. From any thread.
  public var isLinkUp: Bool {
    get { state.withLock { $0.isLinkUp } }
    set {
      let line = state.withLock { state -> (@Sendable () -> Void)? in
        guard state.isLinkUp != newValue else { return nil }
        state.isLinkUp = newValue
        state.generation &+= 1
        return state.status.contains(.driverOK) ? state.configurationLine : nil
      }
      line?()
    }
  }

  /// Where configuration change notifications go: called from whatever thread causes one, and must not block.
  public func setConfigurationLine(_ line: (@Sendable () -> Void)?) {
    state.withLock { $0.configurationLine = line }
  }
}
