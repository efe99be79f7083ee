import CNetdevSystem
import NetdevTesting
import Testing
import Virtio

/// The net header, decoded from a copy and checked in both directions.
@Suite struct NetHeaderTests {
  private let everything: FeatureSet = [
    .csum, .hostTSO4, .hostTSO6, .hostECN, .hostUFO, .hostUSO, .guestCsum, .guestTSO4, .guestTSO6, .guestECN,
    .guestUFO, .guestUSO4, .guestUSO6,
  ]

  @Test("§5.1.9: the fields lie where the text says, little-endian")
  func layout() throws {
    let header = VirtioNetHeader(
      flags: .needsChecksum, segmentation: .tcp6, headerLength: 0x0102, segmentSize: 0x0304, checksumStart: 0x0506,
      checksumOffset: 0x0708, numBuffers: 0x090a)
    var bytes = [UInt8](repeating: 0xee, count: 16)
    unsafe bytes.withUnsafeMutableBytes { unsafe header.store(to: $0.baseAddress.unsafelyUnwrapped + 1) }
    #expect(bytes == [0xee, 1, 4, 2, 1, 4, 3, 6, 5, 8, 7, 0x0a, 9, 0xee, 0xee, 0xee])
    let whole = Array(bytes[1..<13])
    let decoded = unsafe VirtioNetHeader(copied: whole.span.bytes)
    #expect(decoded == header)
    let short = Array(bytes[1..<12])
    let refused = unsafe VirtioNetHeader(copied: short.span.bytes)
    #expect(refused == nil)
    let shared = UnsafeMutablePointer<UInt64>.allocate(capacity: 2)
    defer { unsafe shared.deallocate() }
    unsafe header.store(to: UnsafeMutableRawPointer(shared))
    let loaded = unsafe VirtioNetHeader(loadingOnceFrom: UnsafeRawPointer(shared))
    #expect(loaded == header)
  }

  @Test("Driver rule 19: num_buffers is from 1 to the ring's size, and 1 without MRG_RXBUF")
  func bufferCount() throws {
    for bad: UInt16 in [0, 257, 0xffff] {
      let error = violation { () throws(NetHeaderError) in
        _ = try VirtioNetHeader(numBuffers: bad).bufferCount(mergeable: true, queueSize: 256)
      }
      #expect(error == .bufferCount(bad))
    }
    #expect(try VirtioNetHeader(numBuffers: 256).bufferCount(mergeable: true, queueSize: 256) == 256)
    #expect(try VirtioNetHeader(numBuffers: 1).bufferCount(mergeable: false, queueSize: 256) == 1)
    let error = violation { () throws(NetHeaderError) in
      _ = try VirtioNetHeader(numBuffers: 2).bufferCount(mergeable: false, queueSize: 256)
    }
    #expect(error == .bufferCount(2))
  }

  @Test("Driver rule 21: csum_start + csum_offset + 2 lies in the frame")
  func receiveBounds() throws {
    func check(_ start: UInt16, _ offset: UInt16, _ length: Int) -> NetHeaderError? {
      violation { () throws(NetHeaderError) in
        let header = VirtioNetHeader(flags: .needsChecksum, checksumStart: start, checksumOffset: offset)
        _ = try header.receiveOffload(frameLength: length, features: .guestCsum)
      }
    }
    #expect(check(34, 16, 52) == nil)
    #expect(check(34, 16, 51) == .checksumOutOfBounds(start: 34, offset: 16, frameLength: 51))
    #expect(check(65535, 65535, 1514) == .checksumOutOfBounds(start: 65535, offset: 65535, frameLength: 1514))
    #expect(check(65535, 0, 0) == .checksumOutOfBounds(start: 65535, offset: 0, frameLength: 0))
  }

  @Test("Driver rule 21: unknown flags are ignored, hdr_len is only a hint")
  func receiveUnknown() throws {
    let odd = VirtioNetHeader(flags: .init(rawValue: 0xf0), headerLength: 0xffff)
    #expect(try odd.receiveOffload(frameLength: 60, features: everything) == NetOffload())
    // A flag whose feature was not negotiated says nothing.
    let partial = VirtioNetHeader(flags: .needsChecksum, checksumStart: 0xffff)
    #expect(try partial.receiveOffload(frameLength: 60, features: .version1) == NetOffload())
    let valid = VirtioNetHeader(flags: .dataValid)
    #expect(try valid.receiveOffload(frameLength: 60, features: everything).checksum == .verified)
    // Coalescing information stands where the checksum's place would be.
    let coalesced = VirtioNetHeader(flags: [.needsChecksum, .receiveSegmentCoalescing], checksumStart: 0xffff)
    #expect(try coalesced.receiveOffload(frameLength: 60, features: [.guestCsum, .rscExt]).checksum == .unverified)
  }

  @Test("§5.1.9.4: a received segmentation was negotiated, has a size and a checksum")
  func receiveSegments() throws {
    func check(_ header: VirtioNetHeader, _ features: FeatureSet) -> NetHeaderError? {
      violation { () throws(NetHeaderError) in
        _ = try header.receiveOffload(frameLength: 4000, features: features)
      }
    }
    var header = VirtioNetHeader(flags: .needsChecksum, segmentation: .tcp4, segmentSize: 1448, checksumStart: 34)
    #expect(check(header, [.guestCsum, .guestTSO4]) == nil)
    #expect(check(header, [.guestCsum, .guestTSO6]) == .segmentation(1))
    header.segmentSize = 0
    #expect(check(header, everything) == .segmentSizeZero)
    header.segmentSize = 1448
    header.flags = []
    #expect(check(header, everything) == .segmentationWithoutChecksum)
    header.flags = .needsChecksum
    header.segmentation = .init(rawValue: 0x81)
    #expect(check(header, [.guestCsum, .guestTSO4]) == .segmentation(0x81))
    #expect(check(header, everything) == nil)
    for kind: UInt8 in [2, 6, 0x7f, 0x80, 0x83, 0x85, 0x21] {
      header.segmentation = .init(rawValue: kind)
      #expect(check(header, everything) == .segmentation(kind))
    }
  }

  @Test("Device rule 8: what a driver asks for was negotiated, is complete, and lies in the frame")
  func transmit() throws {
    func check(_ header: VirtioNetHeader, _ features: FeatureSet, length: Int = 1514) -> NetHeaderError? {
      violation { () throws(NetHeaderError) in
        _ = try header.transmitOffload(frameLength: length, features: features)
      }
    }
    let partial = VirtioNetHeader(flags: .needsChecksum, checksumStart: 34, checksumOffset: 16)
    #expect(check(partial, .csum) == nil)
    #expect(check(partial, .version1) == .checksumNotNegotiated)
    #expect(check(partial, .csum, length: 51) == .checksumOutOfBounds(start: 34, offset: 16, frameLength: 51))
    var large = VirtioNetHeader(
      flags: .needsChecksum, segmentation: .udpSegments, headerLength: 0xffff, checksumStart: 34)
    #expect(check(large, [.csum, .hostUSO]) == .segmentSizeZero)
    large.segmentSize = 1400
    #expect(check(large, [.csum, .hostUSO]) == nil)
    #expect(check(large, [.csum, .hostTSO4, .hostUFO]) == .segmentation(5))
    large.flags = .dataValid
    #expect(check(large, [.csum, .hostUSO]) == .segmentationWithoutChecksum)
  }

  @Test("Device rule 8: whatever twelve bytes say, an accepted offload lies inside and was negotiated")
  func transmitFuzz() {
    var random = SeededRandom(seed: 8)
    var accepted = 0
    for _ in 0..<100_000 {
      // Small values often, so that the inner checks are reached.
      let mask: UInt64 = random.next() & 1 == 0 ? .max : 0x00ff_07ff_00ff_ff03
      let header = VirtioNetHeader(copied: random.next() & mask, UInt32(truncatingIfNeeded: random.next() & 0xff))
      let length = Int(random.next() % 2000)
      guard let offload = try? header.transmitOffload(frameLength: length, features: everything) else { continue }
      accepted += 1
      if case .partial(let start, let offset) = offload.checksum {
        #expect(Int(start) + Int(offset) + 2 <= length)
      }
      if let segments = offload.segments {
        #expect(segments.size > 0)
        #expect(offload.checksum != .unverified)
      }
    }
    #expect(accepted > 500)
  }

  @Test(
    "Driver rule 20: a transmitted header has no num_buffers and no DATA_VALID, and GSO brings a checksum and a size")
  func transmitBuilt() throws {
    var random = SeededRandom(seed: 20)
    let kinds: [VirtioNetHeader.Segmentation] = [.tcp4, .tcp6, .udpSegments, .udpFragments, .init(rawValue: 9), .none]
    var built = 0
    for _ in 0..<50_000 {
      let checksums: [NetOffload.Checksum] = [
        .unverified, .verified, .partial(start: UInt16(random.next() % 200), offset: UInt16(random.next() % 200)),
      ]
      var offload = NetOffload(checksum: checksums[Int(random.next() % 3)])
      if random.next() & 1 == 0 {
        offload.segments = NetOffload.Segments(
          kind: kinds[Int(random.next() % 6)], size: UInt16(random.next() % 3) * 700, hasECN: random.next() & 1 == 0)
      }
      let length = Int(random.next() % 400)
      let features = random.next() & 1 == 0 ? everything : [.csum, .hostTSO4]
      guard
        let header = try? VirtioNetHeader(
          transmitting: offload, headerLength: 54, frameLength: length, features: features)
      else { continue }
      built += 1
      #expect(header.numBuffers == 0)
      #expect(!header.flags.contains(.dataValid))
      if header.segmentation != .none {
        #expect(header.flags.contains(.needsChecksum) && header.segmentSize > 0)
      }
      if header.flags.contains(.needsChecksum) {
        #expect(Int(header.checksumStart) + Int(header.checksumOffset) + 2 <= length)
      }
    }
    #expect(built > 1000)
  }
}
