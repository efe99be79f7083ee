/// The back-end's answer to one message of the front-end: checked against what was asked before anything of it is used.
struct FrontendReply: Hashable, Sendable {
  private let payload: [UInt8]

  /// - Throws: when the answer is to something else, is none, has a size of its own mind or brings descriptors.
  init(
    to message: FrontendMessage, header: MessageHeader, payload: [UInt8], descriptors: Int
  ) throws(ProtocolError) {
    let code = FrontendCode(rawValue: header.request)
    guard header.isReply else { throw ProtocolError("\(code) from the back-end, where a reply belongs") }
    guard code == message.code else { throw ProtocolError("a reply to \(code) where \(message.code) was asked") }
    guard descriptors == 0 else { throw ProtocolError("\(descriptors) descriptors with the reply to \(code)") }
    // An empty configuration says that there is none; every other answer has one size.
    var sizes = [8]
    if case .getConfig(let size) = message { sizes = [0, 12 + size] }
    guard sizes.contains(payload.count) else {
      throw ProtocolError("\(payload.count) bytes in the reply to \(code)")
    }
    self.payload = payload
  }

  /// The answer as one number: features, status, counts, acknowledgements.
  var number: UInt64 {
    guard var reader = try? PayloadReader(payload, size: 8) else { return 0 }
    return reader.next()
  }

  /// Ring and index in the answer to GET_VRING_BASE.
  var vring: (ring: UInt32, index: UInt32) {
    guard var reader = try? PayloadReader(payload, size: 8) else { return (.max, 0) }
    let ring: UInt32 = reader.next()
    return (ring, reader.next())
  }

  /// The configuration in the answer to GET_CONFIG, without its own header; nil when the back-end has none.
  var config: [UInt8]? { payload.isEmpty ? nil : Array(payload.dropFirst(12)) }
}
