/// A request of the front-end, by its number in the vhost-user document.
package struct FrontendCode: RawRepresentable, Hashable, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  static let getFeatures = FrontendCode(rawValue: 1)
  static let setFeatures = FrontendCode(rawValue: 2)
  static let setOwner = FrontendCode(rawValue: 3)
  static let setMemTable = FrontendCode(rawValue: 5)
  static let setVringNum = FrontendCode(rawValue: 8)
  static let setVringAddr = FrontendCode(rawValue: 9)
  static let setVringBase = FrontendCode(rawValue: 10)
  static let getVringBase = FrontendCode(rawValue: 11)
  static let setVringKick = FrontendCode(rawValue: 12)
  static let setVringCall = FrontendCode(rawValue: 13)
  static let setVringErr = FrontendCode(rawValue: 14)
  static let getProtocolFeatures = FrontendCode(rawValue: 15)
  static let setProtocolFeatures = FrontendCode(rawValue: 16)
  static let getQueueNum = FrontendCode(rawValue: 17)
  static let setVringEnable = FrontendCode(rawValue: 18)
  static let netSetMTU = FrontendCode(rawValue: 20)
  static let setBackendReqFD = FrontendCode(rawValue: 21)
  static let getConfig = FrontendCode(rawValue: 24)
  static let getMaxMemSlots = FrontendCode(rawValue: 36)
  static let addMemReg = FrontendCode(rawValue: 37)
  static let setStatus = FrontendCode(rawValue: 39)
  static let getStatus = FrontendCode(rawValue: 40)

  private static let names: [UInt32: String] = [
    1: "GET_FEATURES", 2: "SET_FEATURES", 3: "SET_OWNER", 5: "SET_MEM_TABLE", 8: "SET_VRING_NUM", 9: "SET_VRING_ADDR",
    10: "SET_VRING_BASE", 11: "GET_VRING_BASE", 12: "SET_VRING_KICK", 13: "SET_VRING_CALL", 14: "SET_VRING_ERR",
    15: "GET_PROTOCOL_FEATURES", 16: "SET_PROTOCOL_FEATURES", 17: "GET_QUEUE_NUM", 18: "SET_VRING_ENABLE",
    20: "NET_SET_MTU", 21: "SET_BACKEND_REQ_FD", 24: "GET_CONFIG", 36: "GET_MAX_MEM_SLOTS", 37: "ADD_MEM_REG",
    39: "SET_STATUS", 40: "GET_STATUS",
  ]
}

extension FrontendCode: CustomStringConvertible {
  /// The document's name without its prefix, or the number.
  package var description: String { Self.names[rawValue] ?? "request \(rawValue)" }
}

/// A request of the back-end, on the channel that goes the other way.
package struct BackendCode: RawRepresentable, Hashable, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  static let iotlbMessage = BackendCode(rawValue: 1)
  package static let configChange = BackendCode(rawValue: 2)
  static let hostNotifier = BackendCode(rawValue: 3)

  private static let names: [UInt32: String] = [
    1: "BACKEND_IOTLB_MSG", 2: "BACKEND_CONFIG_CHANGE_MSG", 3: "BACKEND_VRING_HOST_NOTIFIER_MSG",
    4: "BACKEND_VRING_CALL", 5: "BACKEND_VRING_ERR",
  ]
}

extension BackendCode: CustomStringConvertible {
  /// The document's name without its prefix, or the number.
  package var description: String { Self.names[rawValue] ?? "back-end request \(rawValue)" }
}
