// How messages read in a trace: the document's names, ring numbers and addresses in hexadecimal.
extension FrontendMessage {
  /// The message in one line.
  var traceText: String {
    switch self {
    case .getFeatures, .setOwner, .getProtocolFeatures, .getQueueNum, .getMaxMemSlots, .getStatus, .setBackendReqFD:
      "\(code)"
    case .setFeatures(let bits): "\(code) \(hexadecimal(bits))"
    case .setProtocolFeatures(let features): "\(code) \(features)"
    case .netSetMTU(let mtu): "\(code) \(mtu)"
    case .setStatus(let status): "\(code) \(hexadecimal(UInt64(status)))"
    case .setMemTable(let regions): "\(code) \(regions.map { $0.traceText }.joined(separator: ", "))"
    case .addMemReg(let region): "\(code) \(region.traceText)"
    case .setVringNum(let ring, let value), .setVringBase(let ring, let value): "\(code) ring \(ring): \(value)"
    case .getVringBase(let ring): "\(code) ring \(ring)"
    case .setVringEnable(let ring, let isEnabled): "\(code) ring \(ring): \(isEnabled ? 1 : 0)"
    case .setVringAddr(let addresses):
      "\(code) ring \(addresses.ring): desc \(hexadecimal(addresses.descriptors)), "
        + "used \(hexadecimal(addresses.used)), avail \(hexadecimal(addresses.available))"
    case .setVringKick(let vring), .setVringCall(let vring), .setVringErr(let vring):
      "\(code) ring \(vring.ring)\(vring.descriptor == nil ? ": no fd, polled" : "")"
    case .getConfig(let size): "\(code) \(size) bytes"
    }
  }
}

extension MemoryRegion {
  fileprivate var traceText: String { "[\(hexadecimal(address)) + \(hexadecimal(size)) at \(fileOffset)]" }
}

extension FrontendReply {
  /// The answer in one line.
  func traceText(for message: FrontendMessage) -> String {
    switch message {
    case .getFeatures, .getStatus: hexadecimal(number)
    case .getProtocolFeatures: "\(ProtocolFeatures(rawValue: number))"
    case .getVringBase: "ring \(vring.ring): \(vring.index)"
    case .getConfig: config.map { "\($0.count) bytes" } ?? "none"
    case .getQueueNum, .getMaxMemSlots: "\(number)"
    default: acknowledgement(number)
    }
  }
}

/// What a REPLY_ACK answer says.
func acknowledgement(_ number: UInt64) -> String { number == 0 ? "acknowledged" : "refused with \(number)" }

private func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
