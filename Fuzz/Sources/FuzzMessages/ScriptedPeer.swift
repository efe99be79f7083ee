import CFuzzSupport
import CNetdevSystem
import FuzzSupport
import Glibc

@testable import VhostUser

/// The back-end's end of a conversation: hears what the front-end asks, and says what the input says.
final class ScriptedPeer {
  private var socket: CInt
  /// The back-end's own channel, once it has been given one.
  private var channel: CInt = -1
  private let loan = netdev_eventfd_create()
  private var heard: [UInt8] = []
  private var descriptors: [CInt] = []
  /// Questions that want an answer.
  private var questions: [(code: UInt32, size: Int, ring: UInt32)] = []

  init(_ socket: CInt) { self.socket = socket }

  deinit {
    hangUp()
    close(loan)
  }

  /// Ends everything.
  func hangUp() {
    for descriptor in descriptors + [socket, channel] where descriptor >= 0 { close(descriptor) }
    descriptors = []
    socket = -1
    channel = -1
  }

  // MARK: Hearing

  /// Takes in whatever has been asked. What our front-end says always reads as a message of a front-end.
  func hear() {
    while receive() {}
    while heard.count >= MessageHeader.size {
      guard let header = try? MessageHeader(Array(heard.prefix(MessageHeader.size))) else {
        violated("the front-end writes headers that can be read")
      }
      guard heard.count >= MessageHeader.size + header.payloadSize else { return }
      let payload = Array(heard[MessageHeader.size..<MessageHeader.size + header.payloadSize])
      heard.removeFirst(MessageHeader.size + header.payloadSize)
      take(header, payload)
    }
    drainChannel()
  }

  private func receive() -> Bool {
    guard socket >= 0 else { return false }
    var room = [UInt8](repeating: 0, count: 4096)
    var arrived = [CInt](repeating: -1, count: Int(NETDEV_UNIX_DESCRIPTORS))
    var count: CInt = 0
    var isTruncated = false
    let received = netdev_unix_receive(socket, &room, room.count, &arrived, &count, &isTruncated)
    descriptors += arrived.prefix(Int(count))
    guard received > 0 else { return false }
    heard += room.prefix(received)
    return true
  }

  private func take(_ header: MessageHeader, _ payload: [UInt8]) {
    let code = FrontendCode(rawValue: header.request)
    // Messages may have been heard together: then nobody knows whose the descriptors are.
    let message =
      (try? FrontendMessage(code: code, payload: payload, descriptors: descriptors))
      ?? (0...FrontendMessage.maximumRegions).lazy.compactMap { count in
        try? FrontendMessage(code: code, payload: payload, descriptors: (0..<count).map { _ in -1 })
      }.first
    guard let message else { violated("the front-end writes messages that can be read: \(code) \(payload)") }
    promise(message.payload == payload, "\(code) is read as it was written")
    if case .setBackendReqFD = message, channel < 0 { channel = descriptors.popLast() ?? -1 }
    for descriptor in descriptors { close(descriptor) }
    descriptors = []
    guard message.hasReply || header.needsReply else { return }
    var ring: UInt32 = 0
    if case .getVringBase(let index) = message { ring = index }
    var size = 8
    if case .getConfig(let bytes) = message { size = 12 + bytes }
    questions.append((header.request, size, ring))
  }

  private func drainChannel() {
    guard channel >= 0 else { return }
    var room = [UInt8](repeating: 0, count: 4096)
    while recv(channel, &room, room.count, CInt(MSG_DONTWAIT)) > 0 {}
  }

  // MARK: Saying

  /// Answers a question, or says something else.
  func say(_ input: inout InputReader) {
    let control = input.byte()
    switch control & 7 {
    case 0...3: answer(control, &input)
    case 4: send(input.take(Int(input.byte())), to: socket, descriptors: 0)
    case 5: send(input.take(Int(input.byte())), to: socket, descriptors: Int(input.byte()))
    case 6: request(&input)
    default: answer(control, &input, flaw: input.byte())
    }
  }

  /// The answer to the oldest question, in the right shape: its value is from the input, but for what a session cannot go on
  /// without. With a flaw, one thing about it is wrong.
  private func answer(_ control: UInt8, _ input: inout InputReader, flaw: UInt8? = nil) {
    guard !questions.isEmpty else { return }
    let question = questions.removeFirst()
    var payload = [UInt8](repeating: 0, count: question.size)
    switch FrontendCode(rawValue: question.code) {
    case .getFeatures:
      // VERSION_1 and PROTOCOL_FEATURES: without them there is not much to say.
      write(input.number(UInt64.self) | 1 << 32 | 1 << 30, to: &payload)
    case .getProtocolFeatures: write(input.number(UInt64.self) | UInt64(control >> 4) << 3, to: &payload)
    case .getVringBase: write(UInt64(question.ring) | UInt64(input.byte()) << 32, to: &payload)
    case .getQueueNum, .getMaxMemSlots: write(UInt64(input.byte()), to: &payload)
    case .getStatus: write(UInt64(input.byte()), to: &payload)
    case .getConfig:
      let config = input.take(question.size - 12)
      payload.replaceSubrange(12..<12 + config.count, with: config)
    default: payload[0] = control & 0x80 == 0 ? 0 : input.byte()
    }
    var header = MessageHeader(request: question.code, payloadSize: payload.count, isReply: true)
    var descriptors = 0
    switch flaw.map({ $0 % 8 }) {
    case 0: header.request = UInt32(input.byte())
    case 1: header.isReply = false
    case 2: descriptors = Int(input.byte())
    case 3: payload = input.take(Int(input.byte()))
    case 4: payload += input.take(Int(input.byte()))
    case 5: payload = []
    case 6: header.needsReply = true
    default: break
    }
    if flaw != nil { header.payloadSize = payload.count }
    send(header.encoded + payload, to: socket, descriptors: descriptors)
  }

  /// A request of the back-end's own, on its channel when it has one.
  private func request(_ input: inout InputReader) {
    let code = UInt32(input.byte())
    let shape = input.byte()
    let payload = input.take(Int(shape >> 3))
    let header = MessageHeader(
      request: code, payloadSize: payload.count, isReply: shape & 1 != 0, needsReply: shape & 2 != 0)
    let bytes = header.encoded + payload
    send(bytes, to: channel >= 0 ? channel : socket, descriptors: shape & 4 == 0 ? 0 : Int(input.byte()))
  }

  private func write(_ value: UInt64, to payload: inout [UInt8]) {
    for index in 0..<8 { payload[index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
  }

  private func send(_ bytes: [UInt8], to descriptor: CInt, descriptors: Int) {
    guard descriptor >= 0, !bytes.isEmpty else { return }
    _ = fuzz_send(descriptor, bytes, bytes.count, loan, CInt(min(descriptors, Int(FUZZ_DESCRIPTORS))))
  }
}
