/// Why a frame was not carried on.
public enum DropReason: UInt8, Sendable, Hashable, CaseIterable {
  // Frames from the driver.
  /// Nothing behind the virtio-net header, or not even that (VIRTIO 1.4 §5.1.9.2).
  case shorterThanHeader
  /// The header asks for an offload that was not negotiated (VIRTIO 1.4 §5.1.9.2.2). Also of frames to the driver.
  case offloadNotNegotiated
  /// The header's checksum or segmentation fields do not fit the frame (VIRTIO 1.4 §5.1.9.2.1).
  case invalidOffload
  /// The pair is disabled, or has been stopped: what its transmit queue brings is discarded.
  case pairDisabled
  /// In more pieces than one system call takes.
  case tooManySegments
  /// What is behind the back-end did not take it, for example a frame shorter than an Ethernet header.
  case refused
  /// What is behind the back-end is down.
  case linkDown
  /// Addressed to a station or host that is not there.
  case notForUs
  /// Does not parse as what it claims to be: a wrong length or checksum, a fragment.
  case malformedFrame
  /// A protocol that the back-end does not carry.
  case unsupportedProtocol
  /// To a host that has not sent anything, or not for a long time.
  case unknownPeer

  // Frames to the driver.
  /// The driver has no buffers on its receive queue, or not enough for this frame.
  case noReceiveBuffer
  /// Longer than a receive buffer of a driver that has not negotiated mergeable buffers.
  case receiveBufferTooSmall
  /// From a new host, when the table of hosts is full of busy ones.
  case tooManyPeers
  /// The driver has asked not to be given it: another station's, a group's or a VLAN's (VIRTIO 1.4 §5.1.9.5).
  case filtered

  // Both.
  /// Longer than the back-end or the device's MTU allows.
  case tooLong
  /// The driver's buffers cannot be read or written.
  case memoryFault
}
