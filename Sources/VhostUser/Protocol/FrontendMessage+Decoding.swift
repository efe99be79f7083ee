/// The way back, for whoever plays the back-end: a payload and the descriptors that came with it become a checked value.
extension FrontendMessage {
  /// - Throws: what is wrong with the size, the numbers or the count of descriptors, which stay the caller's to close.
  package init(code: FrontendCode, payload: [UInt8], descriptors: [CInt]) throws(ProtocolError) {
    self = try Self.decode(code, payload, descriptors)
    guard self.descriptors.count == descriptors.count else {
      throw ProtocolError("\(code) with \(descriptors.count) descriptors instead of \(self.descriptors.count)")
    }
  }

  private static func decode(
    _ code: FrontendCode, _ payload: [UInt8], _ descriptors: [CInt]
  ) throws(ProtocolError) -> FrontendMessage {
    switch code {
    case .getFeatures: return try empty(.getFeatures, payload)
    case .setOwner: return try empty(.setOwner, payload)
    case .getProtocolFeatures: return try empty(.getProtocolFeatures, payload)
    case .getQueueNum: return try empty(.getQueueNum, payload)
    case .getMaxMemSlots: return try empty(.getMaxMemSlots, payload)
    case .getStatus: return try empty(.getStatus, payload)
    case .setFeatures: return .setFeatures(try word(payload))
    case .setProtocolFeatures: return .setProtocolFeatures(ProtocolFeatures(rawValue: try word(payload)))
    case .netSetMTU: return .netSetMTU(try word(payload))
    case .setStatus: return .setStatus(UInt8(truncatingIfNeeded: try word(payload)))
    case .setMemTable: return .setMemTable(try regions(payload, descriptors))
    case .addMemReg: return .addMemReg(try addedRegion(payload, descriptors))
    case .setVringNum: return try vring(payload) { .setVringNum(ring: $0, size: $1) }
    case .setVringBase: return try vring(payload) { .setVringBase(ring: $0, index: $1) }
    case .getVringBase: return try vring(payload) { ring, _ in .getVringBase(ring: ring) }
    case .setVringEnable: return try vring(payload) { .setVringEnable(ring: $0, isEnabled: $1 != 0) }
    case .setVringAddr: return .setVringAddr(try addresses(payload))
    case .setVringKick: return .setVringKick(try vringDescriptor(payload, descriptors))
    case .setVringCall: return .setVringCall(try vringDescriptor(payload, descriptors))
    case .setVringErr: return .setVringErr(try vringDescriptor(payload, descriptors))
    case .setBackendReqFD:
      guard payload.isEmpty, let descriptor = descriptors.first else { throw ProtocolError("\(code) without channel") }
      return .setBackendReqFD(descriptor)
    case .getConfig: return .getConfig(size: try configSize(payload))
    default: throw ProtocolError("the unknown \(code)")
    }
  }

  private static func empty(_ message: FrontendMessage, _ payload: [UInt8]) throws(ProtocolError) -> FrontendMessage {
    _ = try PayloadReader(payload, size: 0)
    return message
  }

  private static func word(_ payload: [UInt8]) throws(ProtocolError) -> UInt64 {
    var reader = try PayloadReader(payload, size: 8)
    return reader.next()
  }

  private static func vring(
    _ payload: [UInt8], _ make: (UInt32, UInt32) -> FrontendMessage
  ) throws(ProtocolError) -> FrontendMessage {
    var reader = try PayloadReader(payload, size: 8)
    let ring: UInt32 = reader.next()
    return make(ring, reader.next())
  }

  private static func vringDescriptor(
    _ payload: [UInt8], _ descriptors: [CInt]
  ) throws(ProtocolError) -> VringDescriptor {
    let value = try word(payload)
    let isPolled = value & 0x100 != 0
    guard isPolled == descriptors.isEmpty else {
      throw ProtocolError("\(descriptors.count) descriptors for a ring that is \(isPolled ? "" : "not ")polled")
    }
    return VringDescriptor(ring: UInt32(value & 0xff), descriptor: descriptors.first)
  }

  private static func addresses(_ payload: [UInt8]) throws(ProtocolError) -> VringAddresses {
    var reader = try PayloadReader(payload, size: 40)
    let ring: UInt32 = reader.next()
    let _: UInt32 = reader.next()
    let descriptors: UInt64 = reader.next()
    let used: UInt64 = reader.next()
    return VringAddresses(ring: ring, descriptors: descriptors, used: used, available: reader.next())
  }

  private static func regions(_ payload: [UInt8], _ descriptors: [CInt]) throws(ProtocolError) -> [MemoryRegion] {
    guard payload.count >= 8 else { throw ProtocolError("a table of \(payload.count) bytes") }
    var count = try PayloadReader(Array(payload.prefix(4)), size: 4)
    let number: UInt32 = count.next()
    guard (1...UInt32(maximumRegions)).contains(number), descriptors.count == Int(number) else {
      throw ProtocolError("\(number) regions with \(descriptors.count) descriptors")
    }
    var reader = try PayloadReader(Array(payload.dropFirst(8)), size: 32 * Int(number))
    return descriptors.map { region(&reader, $0) }
  }

  private static func addedRegion(_ payload: [UInt8], _ descriptors: [CInt]) throws(ProtocolError) -> MemoryRegion {
    guard descriptors.count == 1 else { throw ProtocolError("a region with \(descriptors.count) descriptors") }
    var reader = try PayloadReader(payload, size: 40)
    let _: UInt64 = reader.next()
    return region(&reader, descriptors[0])
  }

  private static func region(_ reader: inout PayloadReader, _ descriptor: CInt) -> MemoryRegion {
    let address: UInt64 = reader.next()
    let size: UInt64 = reader.next()
    let _: UInt64 = reader.next()
    return MemoryRegion(address: address, size: size, fileOffset: reader.next(), descriptor: descriptor)
  }

  private static func configSize(_ payload: [UInt8]) throws(ProtocolError) -> Int {
    guard payload.count >= 12, payload.count <= 12 + maximumConfig else {
      throw ProtocolError("a configuration of \(payload.count) bytes")
    }
    var reader = try PayloadReader(Array(payload.prefix(12)), size: 12)
    let _: UInt32 = reader.next()
    let size: UInt32 = reader.next()
    guard Int(size) == payload.count - 12 else { throw ProtocolError("a configuration of \(size) bytes in disguise") }
    return Int(size)
  }
}
