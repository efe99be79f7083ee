import Foundation
import PacketFormats
import ReferenceFrames
import Testing

/// Wireshark without its windows, as a reader of frames that owes nothing to us.
enum Tshark {
  static let path = ["/usr/bin/tshark", "/usr/local/bin/tshark"].first(where: FileManager.default.isExecutableFile)
  static let skip: Comment = "tshark is not installed: apt-get install tshark"

  /// What it says against each frame: nothing, or its warnings and errors.
  static func complaints(about frames: [[UInt8]]) throws -> [[String]] {
    var complaints = [[String]](repeating: [], count: frames.count)
    for line in try read(frames, ["frame.number", "_ws.expert.severity", "_ws.expert.message", "_ws.malformed"]) {
      let severities = line[1].split(separator: ",").compactMap { Int($0) }
      // A remark is 0x200000, a note 0x400000, a warning 0x600000, an error 0x800000.
      guard let number = Int(line[0]), severities.contains(where: { $0 >= 0x60_0000 }) || !line[3].isEmpty else {
        continue
      }
      complaints[number - 1].append("\(line[2]) \(line[3])")
    }
    return complaints
  }

  /// The values of these fields in each frame; where one occurs more than once, joined by commas.
  static func read(_ frames: [[UInt8]], _ fields: [String]) throws -> [[String]] {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("netdev-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: folder) }
    let (capture, output) = (folder.appendingPathComponent("frames.pcap"), folder.appendingPathComponent("fields"))
    try Data(pcap(frames)).write(to: capture)
    try Data().write(to: output)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try #require(path))
    process.arguments =
      ["-n", "-r", capture.path, "-T", "fields", "-E", "separator=|"]
      // ICMP has no such choice: it is always checked.
      + ["ip", "udp", "tcp"].flatMap { ["-o", "\($0).check_checksum:TRUE"] }
      + fields.flatMap { ["-e", $0] }
    process.standardOutput = try FileHandle(forWritingTo: output)
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    return try String(contentsOf: output, encoding: .utf8).split(separator: "\n").map { line in
      line.split(separator: "|", omittingEmptySubsequences: false).map { String($0) }
    }
  }

  private static func pcap(_ frames: [[UInt8]]) -> [UInt8] {
    var file = CaptureFile()
    for frame in frames { file.append(frame.raw, at: .zero) }
    return file.bytes
  }
}
