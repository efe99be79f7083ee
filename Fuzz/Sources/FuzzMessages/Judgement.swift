import FuzzSupport

@testable import VhostUser

/// Takes a message for everything that it could be: the answer to any message of the front-end, and a message of one.
func judge(_ message: MessageSocket.Incoming) {
  let header = message.header
  promise((try? MessageHeader(header.encoded)) == header, "\(header) reads as it was written")
  promise(header.payloadSize == message.payload.count, "the payload has the size of the header")
  for question in questions { judge(message, asAnswerTo: question) }
  _ = BackendCode(rawValue: header.request).description
  judgeAsQuestion(message)
}

/// One message of each code, and GET_CONFIG in several sizes.
private let questions: [FrontendMessage] = {
  let region = MemoryRegion(address: 0, size: 4096, fileOffset: 0, descriptor: 0)
  let vring = VringDescriptor(ring: 0, descriptor: nil)
  return [
    .getFeatures, .setFeatures(0), .setOwner, .setMemTable([region]), .setVringNum(ring: 0, size: 256),
    .setVringAddr(VringAddresses(ring: 0, descriptors: 0, used: 0, available: 0)), .setVringBase(ring: 0, index: 0),
    .getVringBase(ring: 0), .setVringKick(vring), .setVringCall(vring), .setVringErr(vring), .getProtocolFeatures,
    .setProtocolFeatures([]), .getQueueNum, .setVringEnable(ring: 0, isEnabled: true), .netSetMTU(1500),
    .setBackendReqFD(0), .getMaxMemSlots, .addMemReg(region), .setStatus(0), .getStatus,
  ] + [0, 6, 8, 12, 24, 256].map { .getConfig(size: $0) }
}()

private func judge(_ message: MessageSocket.Incoming, asAnswerTo question: FrontendMessage) {
  let reply: FrontendReply
  do throws(ProtocolError) {
    reply = try FrontendReply(
      to: question, header: message.header, payload: message.payload, descriptors: message.descriptors.count)
  } catch {
    return
  }
  promise(message.header.isReply, "only a reply is taken for one")
  promise(message.header.request == question.code.rawValue, "a reply answers its own question")
  promise(message.descriptors.isEmpty, "a reply has no descriptors")
  _ = reply.traceText(for: question)
  if case .getConfig(let size) = question {
    promise(
      reply.config.map { $0.count == size } ?? message.payload.isEmpty,
      "a configuration has the size that was asked for")
    promise(reply.config.map { message.payload.suffix(size).elementsEqual($0) } ?? true, "a configuration is what came")
  } else {
    var writer = PayloadWriter()
    writer.append(reply.number)
    promise(writer.bytes == message.payload, "a number reads as it was written")
    var vring = PayloadWriter()
    vring.append(reply.vring.ring)
    vring.append(reply.vring.index)
    promise(vring.bytes == message.payload, "a ring's index reads as it was written")
  }
}

/// As a back-end would take it, with as many descriptors as belong to it if any number does.
private func judgeAsQuestion(_ message: MessageSocket.Incoming) {
  let code = FrontendCode(rawValue: message.header.request)
  for count in 0...FrontendMessage.maximumRegions + 1 {
    let descriptors = (0..<count).map { CInt($0) }
    guard let question = try? FrontendMessage(code: code, payload: message.payload, descriptors: descriptors) else {
      continue
    }
    promise(question.code == code && question.descriptors == descriptors, "\(code) stays what it is")
    _ = question.traceText
    promise(
      meaning(of: question.payload, code) == meaning(of: message.payload, code),
      "\(code) is written as it was read: \(message.payload) became \(question.payload)")
    promise(
      (try? FrontendMessage(code: code, payload: question.payload, descriptors: descriptors)) == question,
      "\(question) reads as it was written")
  }
}

/// A payload with zeros where the reader does not look: padding, fields for which this front-end has no use, and what is
/// written anew.
private func meaning(of payload: [UInt8], _ code: FrontendCode) -> [UInt8] {
  var bytes = payload
  func clear(_ range: Range<Int>) { for index in range.clamped(to: bytes.indices) { bytes[index] = 0 } }
  switch code {
  case .setStatus: clear(1..<8)
  case .getVringBase: clear(4..<8)
  case .setVringEnable:
    let isEnabled = bytes[4...].contains { $0 != 0 }
    clear(4..<8)
    bytes[4] = isEnabled ? 1 : 0
  case .setVringAddr:
    clear(4..<8)
    clear(32..<40)
  case .setVringKick, .setVringCall, .setVringErr:
    bytes[1] &= 1
    clear(2..<8)
  case .setMemTable:
    clear(4..<8)
    for start in stride(from: 8, to: bytes.count, by: 32) { clear(start + 16..<start + 24) }
  case .addMemReg:
    clear(0..<8)
    clear(24..<32)
  case .getConfig:
    clear(0..<4)
    clear(8..<bytes.count)
  default: break
  }
  return bytes
}
