/// The twelve bytes in front of every message: request, flags, size of the payload; all in native byte order.
package struct MessageHeader: Hashable, Sendable {
  /// Bytes of a header.
  package static let size = 12
  /// Largest payload that anybody is allowed to send us: far more than what any known message needs.
  static let maximumPayload = 4096

  private static let version: UInt32 = 1
  private static let versionMask: UInt32 = 3
  private static let replyBit: UInt32 = 1 << 2
  private static let needReplyBit: UInt32 = 1 << 3

  /// The number of the request, in its direction's list.
  package var request: UInt32
  /// The message answers one.
  package var isReply = false
  /// The sender wants an answer to a message that has none of its own (REPLY_ACK).
  package var needsReply = false
  /// Bytes that follow.
  package var payloadSize: Int

  package init(request: UInt32, payloadSize: Int, isReply: Bool = false, needsReply: Bool = false) {
    self.request = request
    self.payloadSize = payloadSize
    self.isReply = isReply
    self.needsReply = needsReply
  }

  /// Checks what came: the version, and that the payload is no larger than any may be. Unknown flag bits are ignored.
  init(_ bytes: [UInt8]) throws(ProtocolError) {
    var reader = try PayloadReader(bytes, size: Self.size)
    request = reader.next()
    let flags: UInt32 = reader.next()
    guard flags & Self.versionMask == Self.version else {
      throw ProtocolError("a message of protocol version \(flags & Self.versionMask)")
    }
    isReply = flags & Self.replyBit != 0
    needsReply = flags & Self.needReplyBit != 0
    let size: UInt32 = reader.next()
    guard size <= UInt32(Self.maximumPayload) else { throw ProtocolError("a payload of \(size) bytes") }
    payloadSize = Int(size)
  }

  /// The header as it is sent.
  package var encoded: [UInt8] {
    var flags = Self.version
    if isReply { flags |= Self.replyBit }
    if needsReply { flags |= Self.needReplyBit }
    var writer = PayloadWriter()
    writer.append(request)
    writer.append(flags)
    writer.append(UInt32(truncatingIfNeeded: payloadSize))
    return writer.bytes
  }
}
