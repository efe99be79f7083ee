import PacketFormats
import ReferenceFrames
import Testing

/// Frames as a capture file.
@Suite struct CaptureFileTests {
  @Test func `a file is its header, and each frame with its time and lengths`() {
    var file = CaptureFile(snapLength: 4)
    file.append([1, 2, 3].raw, at: .seconds(7) + .nanoseconds(9))
    file.append([1, 2, 3, 4, 5].raw, at: .seconds(-1))
    let header = hex("a1b23c4d 0002 0004 00000000 00000000 00000004 00000001")
    let first = hex("00000007 00000009 00000003 00000003 010203")
    let second = hex("00000000 00000000 00000004 00000005 01020304")
    #expect(file.bytes == header + first + second && file.count == 2)
    #expect(file.takeBytes() == header + first + second && file.bytes.isEmpty)
    file.append([9].raw, at: .zero)
    #expect(file.takeBytes() == hex("00000000 00000000 00000001 00000001 09") && file.count == 3)
    #expect(CaptureFile(snapLength: 0).bytes == CaptureFile().bytes && CaptureFile(snapLength: -1).snapLength == 65_535)
  }
}
