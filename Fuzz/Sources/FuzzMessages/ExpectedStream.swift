/// What a stream of bytes with descriptors in it means by the vhost-user document, read slowly and all at once.
struct ExpectedStream {
  /// One whole message.
  struct Message: Equatable {
    var request: UInt32
    var isReply: Bool
    var needsReply: Bool
    var payload: [UInt8]
    var descriptors: Int
  }

  private var bytes: [UInt8] = []
  /// Where descriptors were sent, and how many: they belong to the message that has this byte.
  private var grants: [(offset: Int, count: Int)] = []

  /// The most descriptors in one message.
  private static let mostDescriptors = 32
  private static let mostPayload = 4096

  /// Bytes so far.
  var count: Int { bytes.count }

  mutating func append(_ piece: some Sequence<UInt8>, descriptors: Int) {
    if descriptors > 0 { grants.append((bytes.count, descriptors)) }
    bytes += piece
  }

  /// The whole messages up to the first breach of the rules, and whether there is one.
  func messages() -> (messages: [Message], isBroken: Bool) {
    var messages: [Message] = []
    var start = 0
    while start < bytes.count {
      var end = start + 12
      let header = bytes[start..<min(end, bytes.count)]
      var isWhole = header.count == 12
      var flags: UInt32 = 0
      if isWhole {
        flags = number(start + 4)
        let size = number(start + 8)
        if flags & 3 != 1 || size > Self.mostPayload { return (messages, true) }
        end += Int(size)
        isWhole = end <= bytes.count
      }
      let descriptors = grants.filter { (start..<end).contains($0.offset) }.map(\.count)
      if descriptors.reduce(0, +) > Self.mostDescriptors { return (messages, true) }
      if !isWhole { break }
      messages.append(
        Message(
          request: number(start), isReply: flags & 4 != 0, needsReply: flags & 8 != 0,
          payload: Array(bytes[start + 12..<end]), descriptors: descriptors.reduce(0, +)))
      start = end
    }
    return (messages, false)
  }

  private func number(_ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) }
  }
}
