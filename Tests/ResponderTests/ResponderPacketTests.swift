import Netdev
import PacketFormats
import ReferenceFrames
import Responder
import Testing

@Suite("Responder: packets of a pool")
struct ResponderPacketTests {
  private func bytes(_ packet: Packet) -> [UInt8] { [UInt8](packet) }

  @Test("An answer is cut to its length, in the buffer of the question")
  func cut() throws {
    let pool = try PacketPool(PacketPool.Configuration(slots: 4))
    var responder = try makeIPv6Responder()
    var packet = try Packet(copying: IPv6Frame.udp { $0.padding = [1, 2, 3] }.bytes, in: pool)
    let free = pool.free
    let isAnswered = responder.answer(&packet)
    #expect(isAnswered)
    #expect(packet.count == 67 && pool.free == free)
    #expect(bytes(packet)[20] == 17)
  }

  @Test("A solicitation without options, padded or not, grows to its answer in its own buffer")
  func grown() throws {
    let pool = try PacketPool(PacketPool.Configuration(slots: 4))
    var responder = try makeIPv6Responder()
    for padding in 0..<8 {
      let question = IPv6Frame.probe { $0.padding = [UInt8](repeating: 7, count: padding) }.bytes
      var packet = try Packet(copying: question, in: pool)
      let free = pool.free
      let isAnswered = responder.answer(&packet)
      #expect(isAnswered)
      #expect(pool.free == free && pool.copies == 0, "in place")
      #expect(
        bytes(packet)
          == IPv6Frame.answer(for: Here.ipv6Bytes, to: IPv6Bytes.allNodes, mac: [0x33, 0x33, 0, 0, 0, 1], flags: 0x20))
    }
  }

  @Test("A solicitation that somebody else holds too is answered in a buffer of its own")
  func held() throws {
    let pool = try PacketPool(PacketPool.Configuration(slots: 4))
    var responder = try makeIPv6Responder()
    var packet = try Packet(copying: IPv6Frame.solicitation(options: []).bytes, in: pool)
    // A second holder: whoever changes the packet changes a copy.
    let held = packet
    let isAnswered = responder.answer(&packet)
    #expect(isAnswered)
    #expect(bytes(packet) == IPv6Frame.answer(for: Here.ipv6Bytes, to: There.ipv6Bytes))
    #expect(bytes(held) == IPv6Frame.solicitation(options: []).bytes)
  }

  @Test("What is not answered has the length that it had", arguments: 76...88)
  func unanswered(_ length: Int) throws {
    let pool = try PacketPool(PacketPool.Configuration(slots: 4))
    var responder = try makeIPv6Responder()
    let frames = [
      IPv6Frame.probe(target: There.ipv6Bytes) { $0.destination = IPv6Bytes.solicitedNode(Here.ipv6Bytes) }.bytes,
      IPv6Frame.udp(to: 0).bytes, IPv4Frame.udp().bytes,
    ]
    for frame in frames {
      let question = Array((frame + [UInt8](repeating: 0, count: 60)).prefix(length))
      var packet = try Packet(copying: question, in: pool)
      let isAnswered = responder.answer(&packet)
      #expect(!isAnswered)
      #expect(bytes(packet) == question)
    }
  }

  @Test("A packet that is kept and gets no answer is not copied; one that gets an answer is, once")
  func kept() throws {
    let pool = try PacketPool(PacketPool.Configuration(slots: 8))
    var responder = try makeResponder(udpEcho: .ports([7]))
    let silent = [
      IPv4Frame.udp(to: 9).bytes, ARPFrame(targetIP: There.ipBytes).bytes, [1, 2, 3], IPv6Frame.udp().bytes,
    ]
    for question in silent {
      let kept = try Packet(copying: question, in: pool)
      var packet = kept
      let isAnswered = responder.answer(&packet)
      #expect(!isAnswered && pool.copies == 0)
    }
    let kept = try Packet(copying: IPv4Frame.udp().bytes, in: pool)
    var packet = kept
    let isAnswered = responder.answer(&packet)
    #expect(isAnswered && pool.copies == 1 && bytes(kept) == IPv4Frame.udp().bytes)
  }
}
