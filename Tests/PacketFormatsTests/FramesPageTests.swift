import Foundation
import Netdev
import PacketFormats
import ReferenceFrames
import Testing

/// The snippets of the page "Frames", each as it stands there; the last test compares the two, line by line.
@Suite("The page about frames")
struct FramesPageTests {
  private let pool: PacketPool
  private let own = Here.mac
  private let neighbor = There.mac

  init() throws { pool = try PacketPool(.init(slots: 16, hugePages: false)) }

  @Test("Look at one")
  func look() throws {
    let packet = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    print(packet)
    // 02:00:00:00:00:02 > 02:00:00:00:00:01, IPv4, length 47: 10.0.0.2.5000 > 10.0.0.1.7: UDP, length 5
    let etherType = try packet.loadUInt16(at: 12)
    let first = packet[0]
    let copy = [UInt8](packet)
    #expect(etherType == 0x0800 && first == 2 && copy == IPv4Frame.udp().bytes)
    #expect(
      "\(packet)"
        == "02:00:00:00:00:02 > 02:00:00:00:00:01, IPv4, length 47: 10.0.0.2.5000 > 10.0.0.1.7: UDP, length 5")
  }

  @Test("Take a datagram out")
  func take() throws {
    let packet = try Packet(copying: IPv4Frame.udp([1, 2]).bytes, in: pool)
    let text = try packet.withBytes { (bytes) throws(PacketFormatError) in
      let (flow, payload) = try UDPFrame.decode(bytes)
      try flow.checkAnswerable()
      return "\(flow.source) says \(bytes.extracting(payload).copied())"
    }
    #expect(text == "10.0.0.2 says [1, 2]")
  }

  @Test("Put one in")
  func put() throws {
    let payload = try Packet(copying: Array("hello".utf8), in: pool)
    let flow = UDPFrame(
      sourceMAC: own, destinationMAC: neighbor, source: IPv4Address(10, 0, 0, 1), destination: IPv4Address(10, 0, 0, 2),
      sourcePort: 7, destinationPort: 5000)
    let answer = try flow.makePacket(payload: Array("hello".utf8), in: pool)
    let around = try flow.makePacket(around: payload)
    #expect([UInt8](answer) == [UInt8](around))
  }

  func pass(_ packet: consuming Packet) throws(PacketFormatError) -> Packet {
    let mayPass = try packet.withMutableInternetFrame { frame throws(PacketFormatError) in
      guard frame.decrementHopLimit() else { return false }
      frame.setStations(source: own, destination: neighbor)
      if frame.sourcePort == 5000 {
        try frame.setSource(IPv4Address(192, 0, 2, 1))
        try frame.setSourcePort(40_000)
      }
      return true
    }
    if mayPass { return packet }
    return try ICMPv4Error.timeExceeded.makePacket(about: packet, from: IPv4Address(10, 0, 0, 254))
  }

  @Test("Pass one on")
  func passOn() throws {
    let passed = try pass(Packet(copying: IPv4Frame.udp().bytes, in: pool))
    #expect("\(passed)".hasSuffix("192.0.2.1.40000 > 10.0.0.1.7: UDP, length 5") && passed[22] == 2)
    let ended = try pass(Packet(copying: IPv4Frame.udp { $0.timeToLive = 1 }.bytes, in: pool))
    #expect("\(ended)".contains("10.0.0.254 > 10.0.0.2: ICMP time exceeded in-transit"))
    #expect(pool.copies == 0)
  }

  @Test("Tags")
  func tags() throws {
    var packet = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    try packet.pushVLANTag(VLANTag(identifier: 100, priority: 3))
    if let tag = packet.popVLANTag() { print(tag) }  // vlan 100, p 3
    #expect([UInt8](packet) == IPv4Frame.udp().bytes)
  }

  @Test("Every line of code on the page is one of this file")
  func sameAsPage() throws {
    let here = URL(fileURLWithPath: #filePath)
    let root = here.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let page = try String(
      contentsOf: root.appendingPathComponent("Sources/Netdev/Netdev.docc/Frames.md"), encoding: .utf8)
    func lines(_ text: some StringProtocol) -> [String] {
      text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
    }
    let mine = lines(try String(contentsOf: here, encoding: .utf8))
    let blocks = page.components(separatedBy: "```swift\n").dropFirst().map {
      lines($0.components(separatedBy: "```")[0])
    }
    #expect(blocks.count == 6)
    for block in blocks {
      let isHere = mine.indices.contains { mine[$0...].starts(with: block) }
      #expect(isHere, "\(block.joined(separator: "\n"))")
    }
  }
}
