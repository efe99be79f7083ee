/// A region of memory as the back-end is shown it. The descriptor is borrowed: whoever made the message keeps it open.
package struct MemoryRegion: Hashable, Sendable {
  /// First address in the device's address space, which serves as "guest" and "user" address alike.
  package var address: UInt64
  /// Bytes.
  package var size: UInt64
  /// Where the region begins in the file.
  package var fileOffset: UInt64
  /// The file.
  package var descriptor: CInt
}

/// Where a ring's parts lie, by the addresses that the memory regions give.
package struct VringAddresses: Hashable, Sendable {
  package var ring: UInt32
  package var descriptors: UInt64
  package var used: UInt64
  package var available: UInt64
}

/// An eventfd for a ring; nil for a ring that is polled instead. Borrowed, as in `MemoryRegion`.
package struct VringDescriptor: Hashable, Sendable {
  /// Index of the ring, 0 to 255: the message has eight bits for it.
  package var ring: UInt32
  package var descriptor: CInt?

  fileprivate static let ringMask: UInt64 = 0xff
  fileprivate static let noDescriptor: UInt64 = 1 << 8
}

/// A message of the front-end, as a value: it cannot be made with a payload or descriptors that do not belong to it.
package enum FrontendMessage: Hashable, Sendable {
  case getFeatures
  case setFeatures(UInt64)
  case setOwner
  /// At most eight regions.
  case setMemTable([MemoryRegion])
  case setVringNum(ring: UInt32, size: UInt32)
  case setVringAddr(VringAddresses)
  case setVringBase(ring: UInt32, index: UInt32)
  case getVringBase(ring: UInt32)
  case setVringKick(VringDescriptor)
  case setVringCall(VringDescriptor)
  case setVringErr(VringDescriptor)
  case getProtocolFeatures
  case setProtocolFeatures(ProtocolFeatures)
  case getQueueNum
  case setVringEnable(ring: UInt32, isEnabled: Bool)
  case netSetMTU(UInt64)
  case setBackendReqFD(CInt)
  /// So many bytes of the configuration from its beginning, 256 at most.
  case getConfig(size: Int)
  case getMaxMemSlots
  case addMemReg(MemoryRegion)
  case setStatus(UInt8)
  case getStatus

  /// The most regions in one table.
  static let maximumRegions = 8
  /// The most bytes of configuration in one message.
  static let maximumConfig = 256
}

extension FrontendMessage {
  var code: FrontendCode {
    switch self {
    case .getFeatures: .getFeatures
    case .setFeatures: .setFeatures
    case .setOwner: .setOwner
    case .setMemTable: .setMemTable
    case .setVringNum: .setVringNum
    case .setVringAddr: .setVringAddr
    case .setVringBase: .setVringBase
    case .getVringBase: .getVringBase
    case .setVringKick: .setVringKick
    case .setVringCall: .setVringCall
    case .setVringErr: .setVringErr
    case .getProtocolFeatures: .getProtocolFeatures
    case .setProtocolFeatures: .setProtocolFeatures
    case .getQueueNum: .getQueueNum
    case .setVringEnable: .setVringEnable
    case .netSetMTU: .netSetMTU
    case .setBackendReqFD: .setBackendReqFD
    case .getConfig: .getConfig
    case .getMaxMemSlots: .getMaxMemSlots
    case .addMemReg: .addMemReg
    case .setStatus: .setStatus
    case .getStatus: .getStatus
    }
  }

  /// True for a message whose answer is a value of its own; the others are acknowledged only when REPLY_ACK was agreed.
  var hasReply: Bool {
    switch self {
    case .getFeatures, .getVringBase, .getProtocolFeatures, .getQueueNum, .getConfig, .getMaxMemSlots, .getStatus: true
    default: false
    }
  }

  /// The descriptors that go with the message.
  package var descriptors: [CInt] {
    switch self {
    case .setMemTable(let regions): regions.map { $0.descriptor }
    case .addMemReg(let region): [region.descriptor]
    case .setVringKick(let vring), .setVringCall(let vring), .setVringErr(let vring):
      vring.descriptor.map { [$0] } ?? []
    case .setBackendReqFD(let descriptor): [descriptor]
    default: []
    }
  }

  /// The payload as it is sent.
  var payload: [UInt8] {
    var writer = PayloadWriter()
    switch self {
    case .getFeatures, .setOwner, .getProtocolFeatures, .getQueueNum, .setBackendReqFD, .getMaxMemSlots, .getStatus:
      break
    case .setFeatures(let bits), .netSetMTU(let bits): writer.append(bits)
    case .setProtocolFeatures(let features): writer.append(features.rawValue)
    case .setStatus(let status): writer.append(UInt64(status))
    case .setMemTable(let regions):
      writer.append(UInt32(truncatingIfNeeded: regions.count))
      writer.append(UInt32(0))
      for region in regions { writer.append(region) }
    case .addMemReg(let region):
      writer.append(UInt64(0))
      writer.append(region)
    case .setVringNum(let ring, let value), .setVringBase(let ring, let value):
      writer.append(ring)
      writer.append(value)
    case .setVringEnable(let ring, let isEnabled):
      writer.append(ring)
      writer.append(UInt32(isEnabled ? 1 : 0))
    case .getVringBase(let ring):
      writer.append(ring)
      writer.append(UInt32(0))
    case .setVringAddr(let addresses):
      writer.append(addresses.ring)
      // No flags: nothing is logged.
      writer.append(UInt32(0))
      writer.append(addresses.descriptors)
      writer.append(addresses.used)
      writer.append(addresses.available)
      writer.append(UInt64(0))
    case .setVringKick(let vring), .setVringCall(let vring), .setVringErr(let vring):
      let mark = vring.descriptor == nil ? VringDescriptor.noDescriptor : 0
      writer.append(UInt64(vring.ring) & VringDescriptor.ringMask | mark)
    case .getConfig(let size):
      let size = min(max(size, 0), Self.maximumConfig)
      writer.append(UInt32(0))
      writer.append(UInt32(truncatingIfNeeded: size))
      writer.append(UInt32(0))
      // The room for the answer is part of the question.
      for _ in 0..<size { writer.append(UInt8(0)) }
    }
    return writer.bytes
  }
}

extension PayloadWriter {
  fileprivate mutating func append(_ region: MemoryRegion) {
    append(region.address)
    append(region.size)
    append(region.address)
    append(region.fileOffset)
  }
}
