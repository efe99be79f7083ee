import Testing

@testable import VhostUser

/// Messages as bytes: what is written is read back, and what is not a message is refused.
@Suite struct CodecTests {
  static let region = MemoryRegion(address: 1 << 40, size: 4096, fileOffset: 8192, descriptor: 7)
  static let messages: [FrontendMessage] = [
    .getFeatures, .setFeatures(0x1_4000_8000), .setOwner, .setMemTable([region]),
    .setMemTable(Array(repeating: region, count: 8)), .setVringNum(ring: 1, size: 256),
    .setVringAddr(VringAddresses(ring: 3, descriptors: 16, used: 1024, available: 512)),
    .setVringBase(ring: 2, index: 65_535), .getVringBase(ring: 255),
    .setVringKick(VringDescriptor(ring: 255, descriptor: 9)), .setVringCall(VringDescriptor(ring: 0, descriptor: nil)),
    .setVringErr(VringDescriptor(ring: 1, descriptor: 8)), .getProtocolFeatures,
    .setProtocolFeatures([.mq, .replyAck]), .getQueueNum, .setVringEnable(ring: 1, isEnabled: true), .netSetMTU(1500),
    .setBackendReqFD(5), .getConfig(size: 24), .getMaxMemSlots, .addMemReg(region), .setStatus(15), .getStatus,
  ]

  @Test(arguments: messages)
  func `a message is read back as it was`(_ message: FrontendMessage) throws {
    let back = try FrontendMessage(code: message.code, payload: message.payload, descriptors: message.descriptors)
    #expect(back == message)
  }

  @Test(arguments: messages)
  func `a byte or a descriptor too many or too few is refused`(_ message: FrontendMessage) {
    let (code, payload, descriptors) = (message.code, message.payload, message.descriptors)
    func isRefused(_ payload: [UInt8], _ descriptors: [CInt]) -> Bool {
      (try? FrontendMessage(code: code, payload: payload, descriptors: descriptors)) == nil
    }
    #expect(isRefused(payload + [0], descriptors))
    #expect(payload.isEmpty || isRefused(Array(payload.dropLast()), descriptors))
    #expect(isRefused(payload, descriptors + [1]))
    #expect(descriptors.isEmpty || isRefused(payload, Array(descriptors.dropLast())))
  }

  @Test func `a kick is eight bits of index and a mark`() {
    #expect(FrontendMessage.setVringKick(VringDescriptor(ring: 3, descriptor: 1)).payload == [3, 0, 0, 0, 0, 0, 0, 0])
    #expect(
      FrontendMessage.setVringKick(VringDescriptor(ring: 3, descriptor: nil)).payload == [3, 1, 0, 0, 0, 0, 0, 0])
  }

  @Test func `headers are checked for version and size, and keep their flags`() throws {
    let header = MessageHeader(request: 11, payloadSize: 8, isReply: true, needsReply: false)
    #expect(try MessageHeader(header.encoded) == header)
    #expect(header.encoded == [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0])
    for version: UInt8 in [0, 2, 3] {
      var bytes = header.encoded
      bytes[4] = bytes[4] & ~3 | version
      #expect(throws: ProtocolError.self) { try MessageHeader(bytes) }
    }
    var bytes = header.encoded
    bytes[9] = 0x10
    #expect(throws: ProtocolError.self) { try MessageHeader(bytes) }
    #expect(throws: ProtocolError.self) { try MessageHeader(Array(bytes.dropLast())) }
  }

  @Test func `no bytes at all make the decoder trap`() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<20_000 {
      let code = FrontendCode(rawValue: UInt32.random(in: 0...45, using: &generator))
      let payload = (0..<Int.random(in: 0...300, using: &generator)).map { _ in UInt8.random(in: 0...255) }
      let descriptors = [CInt](repeating: 0, count: Int.random(in: 0...9, using: &generator))
      let message = try? FrontendMessage(code: code, payload: payload, descriptors: descriptors)
      #expect(message.map { $0.code == code } ?? true)
    }
  }

  @Test(arguments: messages)
  func `a trace names each message in the document's words`(_ message: FrontendMessage) {
    #expect(message.traceText.hasPrefix("\(message.code)"))
    #expect(!message.traceText.contains("request"))
  }
}
