import FuzzSupport
import PacketFormats
import Responder

/// Gives the responder one frame, and reads its answer slowly.
///
/// Promises: an answer is no longer than its question, but for an advertisement; its lengths and checksums are right; it comes
/// from us and goes to one station, or to all nodes; a frame that is not answered is left as it was; nothing behind the frame
/// is written, but the end of an advertisement.
func answer(_ input: inout InputReader, repairs: Bool, manyAddresses: Bool) {
  let shape = input.byte()
  // Room behind the frame, and sometimes a length that is not the frame's.
  let spare = Int(shape & 15)
  var frame = input.rest()
  if repairs { Repair.checksums(of: &frame) }
  let length: Int
  switch shape >> 4 {
  case 0: length = frame.count + spare + 1
  case 1: length = -1
  case 2: length = Int.max
  case 3: length = frame.count / 2
  default: length = frame.count
  }
  let room = FencedMemory(frame.count + spare, alignment: 1)
  frame.withUnsafeBytes { if let start = $0.baseAddress { room.start.copyMemory(from: start, byteCount: $0.count) } }
  let before = room.bytes
  var responder = manyAddresses ? Host.many : Host.one
  var span = UnsafeMutableRawBufferPointer(start: room.start, count: room.count).mutableBytes
  let answer = responder.answer(&span, length: length)
  let after = room.bytes
  switch answer {
  case .deliver, .drop: promise(after == before, "a frame that is not answered is left as it was")
  case .reply(let count):
    promise(count <= room.count && count >= 42, "an answer of \(count) bytes is in the buffer")
    let isAdvertisement = count == 86 && after[12] == 0x86 && after[20] == 58 && after[54] == 136
    promise(count <= length || isAdvertisement, "an answer is no longer than its question")
    promise(after.dropFirst(max(length, count)) == before.dropFirst(max(length, count)), "nothing behind it is written")
    if let flaw = flaw(of: Array(after.prefix(count)), isAdvertisement: isAdvertisement) {
      violated("an answer is right: \(flaw), in \(after.prefix(count))")
    }
  }
}

/// The station and host that is spoken to.
enum Host {
  static let mac: [UInt8] = [0x02, 0, 0, 0, 0, 0x01]
  static let one = make(["10.0.0.1/24"], nil, .ports([7, 9]))
  static let many = make(["10.0.0.1/24", "192.168.1.5/31"], ["fd00::1/64", "2001:db8::7/48"], .all)

  private static func make(_ v4: [String], _ v6: [String]?, _ ports: UDPEchoPorts) -> Responder {
    guard let station = MACAddress("02:00:00:00:00:01"),
      let responder = try? Responder(
        macAddress: station, addresses: v4.compactMap { IPv4Network($0) },
        ipv6Addresses: (v6 ?? []).compactMap { IPv6Network($0) }, udpEcho: ports)
    else { violated("the addresses are right") }
    return responder
  }
}
