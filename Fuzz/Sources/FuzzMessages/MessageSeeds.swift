import FuzzSupport

@testable import VhostUser

/// Conversations that go all the way, and streams of one message of each kind.
let messageSeeds: [[UInt8]] = {
  // Every question answered: first with all features, then as DPDK 22.11 does, then with none.
  let features: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
  let modest: [UInt8] = [0x08, 0x80, 0x40, 0x70, 1, 0, 0, 0]
  let protocols: [UInt8] = [0xbf, 0x0c, 0x01, 0, 0, 0, 0, 0]
  let config = Seeds.hex("02 00 00 00 00 01 01 00 02 00 dc 05 10 27 00 00 01 28 80 00 ff 01 00 00")
  let answers: [UInt8] = (0..<40).flatMap { _ in [UInt8(0), UInt8(1)] }
  let begin: [UInt8] = [1, 0, 0]
  let pairs: [UInt8] = [0, 0, 4, 0, 8, 0, 0, 0]
  let requests: [UInt8] = [6, 2, 3, 6, 3, 0x1e, 5, 2, 6, 5, 0x0b]
  var seeds: [[UInt8]] = [
    [begin, features, [0], features, pairs, config, answers].flatMap { $0 },
    [begin, modest, [0], protocols, answers].flatMap { $0 },
    [[1], answers].flatMap { $0 },
    [begin, modest, [0], protocols, requests, answers].flatMap { $0 },
  ]
  // A message of each code: as a request with its usual payload, and as a reply of eight bytes.
  let sizes: [UInt8: UInt8] = [5: 72, 9: 40, 24: 36, 37: 40, 3: 0, 1: 0, 15: 0, 17: 0, 21: 0, 36: 0, 40: 0]
  for code in UInt8(1)...41 {
    let size = sizes[code] ?? 8
    var payload = [UInt8](repeating: 0, count: Int(size))
    if size > 0 { payload[0] = 2 }
    seeds.append([0, 0x82, code, 0x09, size, size] + payload)
    seeds.append([0, 0x8a, code, 0x04, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8])
  }
  // Bytes one by one, with descriptors, too many of them, and a payload that is longer than any.
  let bytes = MessageHeader(request: 1, payloadSize: 8, isReply: true).encoded + [1, 2, 3, 4, 5, 6, 7, 8]
  seeds.append([0] + bytes.flatMap { [0x81, $0] })
  seeds.append([0] + bytes.flatMap { [0x09, $0] } + [0x80, 20] + bytes)
  seeds.append([0, 0x0c, 33, 20] + bytes)
  seeds.append([0, 0x03, 1, 0x04, 0, 16, 255])
  return seeds
}()
