public import Virtio

/// What driver and device have agreed on about frames: fixed from FEATURES_OK on.
public struct FrameFormat: Sendable, Hashable {
  /// The negotiated features.
  public let features: FeatureSet
  /// A received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF).
  public let isMergeable: Bool

  /// The format that follows from the negotiated features.
  public init(_ features: FeatureSet) {
    self.features = features
    isMergeable = features.contains(.mrgRxbuf)
  }

  /// Length of the header in front of every frame, both ways, in bytes. No feature that makes it longer is offered.
  @inline(__always) public var headerLength: Int { VirtioNetHeader.size }

  /// Judges the copied header of a frame of `frameLength` bytes from the driver; nil when the frame may be carried on.
  ///
  /// What was not negotiated is refused, and so is what leads outside the frame (VIRTIO 1.4 §5.1.9.2.2).
  func objection(to header: VirtioNetHeader, frameLength: Int) -> DropReason? {
    do throws(NetHeaderError) {
      _ = try header.transmitOffload(frameLength: frameLength, features: features)
      return nil
    } catch .checksumNotNegotiated, .segmentation {
      return .offloadNotNegotiated
    } catch {
      return .invalidOffload
    }
  }
}

extension VirtioNetHeader {
  /// Copies the header from the front of a buffer of the driver's, at any alignment, in two loads.
  @inline(__always) init(copying bytes: UnsafeMutableRawPointer) {
    unsafe self.init(
      copied: bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
  }

  /// Copies the header from the front of a chain, over however many buffers it is spread; nil when the chain has no byte
  /// behind it (VIRTIO 1.4 §5.1.9.2; a chain shorter than its header was CVE-2022-2132).
  init?(copying chain: DescriptorChain) {
    guard chain.readableLength > Self.size else { return nil }
    var copy = (UInt64(0), UInt32(0))
    // The two words lie in the first 12 bytes of the tuple.
    unsafe withUnsafeMutableBytes(of: &copy) { room in
      _ = unsafe chain.copyBytes(from: 0, into: UnsafeMutableRawBufferPointer(rebasing: room[..<Self.size]))
    }
    self.init(copied: copy.0, copy.1)
  }

  /// Stores the header at the front of a receive buffer's writable bytes, of which there are at least 12.
  func store(to chain: DescriptorChain) {
    let first = unsafe chain.writable[0]
    if first.length >= Self.size { return unsafe store(to: first.base) }
    var copy = (UInt64(0), UInt64(0))
    unsafe withUnsafeMutableBytes(of: &copy) { room in
      guard let start = room.baseAddress else { return }
      // The room has 16 bytes, of which the header takes 12.
      unsafe store(to: start)
      _ = unsafe chain.write(UnsafeRawBufferPointer(rebasing: room[..<Self.size]), at: 0)
    }
  }
}
