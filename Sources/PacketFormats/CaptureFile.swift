/// Frames as a capture file that wireshark, tshark and tcpdump read: the classic format of libpcap, with nanoseconds.
///
/// ```swift
/// var file = CaptureFile()
/// file.append(frame, at: .seconds(1_700_000_000))
/// try Data(file.bytes).write(to: url)
/// ```
///
/// Its numbers are big-endian on every machine; the first of them tells readers so, as the format has it.
///
/// It is bytes in memory, and no file: whoever wants it on a disk, or in a pipe as it grows, writes them. `takeBytes()` hands over what
/// has come since the last time.
public struct CaptureFile: Sendable {
  /// What has been made so far and not been taken, the header of the file first.
  public private(set) var bytes: [UInt8] = []
  /// Bytes of a frame that are kept; of a longer one the front is.
  public let snapLength: Int
  /// Frames appended.
  public private(set) var count = 0

  /// A file without a frame.
  ///
  /// - Parameter snapLength: bytes of a frame that are kept. 0, as for tcpdump, and less: as many as without it.
  public init(snapLength: Int = 65_535) {
    self.snapLength = snapLength > 0 ? snapLength : 65_535
    // Its magic number says nanoseconds, and the byte order; then version 2.4, no time zone, and Ethernet.
    for word in [0xA1B2_3C4D, 0x0002_0004, 0, 0, UInt32(clamping: self.snapLength), 1] { append(word) }
  }

  /// Adds a frame.
  ///
  /// - Parameters:
  ///   - frame: from its Ethernet header on.
  ///   - time: when it came, since the beginning of 1970 UTC; what is before that is the beginning.
  public mutating func append(_ frame: RawSpan, at time: Duration) {
    // A duration of more seconds than there are numbers has no components.
    let (seconds, attoseconds) = min(max(time, .zero), .seconds(Int64.max)).components
    let kept = frame.extracting(first: snapLength)
    append(UInt32(clamping: seconds))
    append(UInt32(clamping: attoseconds / 1_000_000_000))
    append(UInt32(clamping: kept.byteCount))
    append(UInt32(clamping: frame.byteCount))
    bytes.append(contentsOf: kept.copied())
    count += 1
  }

  /// Hands over the bytes that have come since the last time.
  public mutating func takeBytes() -> [UInt8] {
    defer { bytes = [] }
    return bytes
  }

  private mutating func append(_ word: UInt32) {
    for shift in stride(from: 24 as UInt32, through: 0, by: -8) {
      bytes.append(UInt8(truncatingIfNeeded: word >> shift))
    }
  }
}
