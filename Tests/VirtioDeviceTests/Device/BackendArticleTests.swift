import Foundation
import NetdevTesting
import PacketFormats
import Testing
import Virtio
import VirtioDevice

// The article for back-end writers, compiled: what stands between the marks is compared with what is printed.

// snippet
final class MirrorBackend: NetworkBackend {
  let description = "mirror"
  let features = FeatureSet()
  let maximumPairs = 1
  let macAddress: MACAddress? = nil
  let mtu: UInt16? = nil

  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort { MirrorPort() }
  func close() {}
}

final class MirrorPort: BackendPort {
  private var frame = [UInt8](repeating: 0, count: 65_550)

  func start(_ bell: ServiceBell) {}
  func setEnabled(_ enabled: Bool) {}
  func close() {}

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    var budget = budget
    rings.beginTransmit()
    rings.beginReceive()
    while let chain = rings.nextFrame(&budget) {
      // Private memory from here on: the driver's may change while it is looked at.
      let length = unsafe frame.withUnsafeMutableBytes { unsafe rings.copyFrame(of: chain, into: $0) }
      guard length >= 14, length <= frame.count else {
        rings.drop(chain, .malformedFrame)
        continue
      }
      for index in 0..<6 { frame.swapAt(index, index + 6) }
      rings.release(chain, frameLength: length)
      let refusal = unsafe frame.withUnsafeBytes { bytes in
        unsafe rings.deliver(UnsafeRawBufferPointer(rebasing: bytes[..<length]))
      }
      if let reason = refusal { rings.countDrop(.received, reason) }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }
}
// end

/// The article for back-end writers says what is true.
@Suite struct BackendArticleTests {
  private func lines(of text: String) -> [String] {
    text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
  }

  @Test func `its back-end gives frames back with their addresses swapped, and drops what has none`() throws {
    let rig = try Rig(backend: MirrorBackend())
    let buffer = rig.offerReceive([1526])
    let frame = (0..<60).map { UInt8($0) }
    rig.offerTransmit(frame: [1, 2, 3])
    rig.offerTransmit(frame: frame)
    rig.serve()
    #expect(rig.receive.takeUsed()?.written == 72)
    #expect(rig.contents(buffer, 72).suffix(60) == frame[6..<12] + frame[0..<6] + frame[12...])
    #expect(rig.engine.statistics.drops[.transmitted, .malformedFrame] == 1)
    #expect(rig.engine.statistics.transmittedFrames == 1)
  }

  @Test func `it is printed as it is compiled`() throws {
    let source = lines(of: try String(contentsOf: URL(filePath: #filePath), encoding: .utf8))
    let start = try #require(source.firstIndex(of: "// snippet"))
    let end = try #require(source.firstIndex(of: "// end"))
    let snippet = Array(source[(start + 1)..<end])
    let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../..")
    let article = lines(
      of: try String(
        contentsOf: root.appending(path: "Sources/NetdevTesting/NetdevTesting.docc/WritingABackend.md"), encoding: .utf8
      ))
    let first = try #require(article.firstIndex(of: snippet[0]))
    #expect(Array(article[first..<min(first + snippet.count, article.count)]) == snippet)
  }
}
