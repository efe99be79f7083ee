import PacketFormats

/// Keys and their values, asked for in words, a datagram each: `set color blue`, `get color`, `delete color`.
public struct Store {
  /// Bytes of a key and its value together, at most.
  static let limit = 1024
  /// Keys at most: strangers may set them.
  static let capacity = 100_000

  private var values: [[UInt8]: [UInt8]] = [:]
  var count: Int { values.count }

  /// Without any.
  public init() {}

  /// What to answer to a request.
  public mutating func answer(_ request: RawSpan) -> [UInt8] {
    guard request.byteCount <= Self.limit else { return Array("error: too long".utf8) }
    let words = request.copied().split(separator: UInt8(ascii: " "), maxSplits: 2).map { Array($0) }
    switch (words.first.map { String(decoding: $0, as: UTF8.self) }, words.count) {
    case ("get", 2): return values[words[1]] ?? Array("error: no such key".utf8)
    case ("delete", 2):
      return values.removeValue(forKey: words[1]) == nil ? Array("error: no such key".utf8) : Array("ok".utf8)
    case ("set", 3):
      guard values.count < Self.capacity || values[words[1]] != nil else { return Array("error: full".utf8) }
      values[words[1]] = words[2]
      return Array("ok".utf8)
    default: return Array("error: get KEY, set KEY VALUE or delete KEY".utf8)
    }
  }
}
