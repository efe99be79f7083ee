internal import Glibc

/// The CPUs that this process may use.
public var allowedCPUs: [Int] {
  let lines = textOfFile("/proc/self/status").split(separator: "\n")
  let list = lines.first { $0.hasPrefix("Cpus_allowed_list:") }?.split(whereSeparator: \.isWhitespace).last ?? ""
  // A list such as "0-3,8".
  return list.split(separator: ",").flatMap { range -> ClosedRange<Int> in
    let ends = range.split(separator: "-").compactMap { Int($0) }
    return (ends.first ?? 0)...(ends.last ?? 0)
  }
}

/// The text of a small file; empty when it cannot be read, as when its process has ended.
public func textOfFile(_ path: String) -> String {
  guard let file = fopen(path, "r") else { return "" }
  defer { fclose(file) }
  var bytes = [UInt8](repeating: 0, count: 65_536)
  let count = fread(&bytes, 1, bytes.count, file)
  return String(decoding: bytes[..<count], as: UTF8.self)
}
