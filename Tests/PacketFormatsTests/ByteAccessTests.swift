import Netdev
import NetdevTesting
import PacketFormats
import ReferenceFrames
import Testing

@Suite("Fields in network byte order")
struct ByteAccessTests {
  private let offsets = [Int.min, -9, -8, -1] + Array(0...20) + [Int.max - 7, Int.max]

  /// What a slow reader finds.
  private func expected(_ bytes: [UInt8], _ width: Int, _ offset: Int) -> UInt64? {
    guard offset >= 0, offset <= bytes.count - width else { return nil }
    return bytes[offset..<(offset + width)].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// The value, or where the error says that the field ends.
  private func outcome(_ bytes: Int, _ load: () throws -> UInt64) -> UInt64? {
    do { return try load() } catch let error as PacketFormatError {
      guard error.reason == .truncated, case .length(_, limit: bytes) = error.found else {
        Issue.record("\(error)")
        return nil
      }
    } catch { Issue.record("\(error)") }
    return nil
  }

  @Test("A load gives the field or says that it is not inside, at every offset", arguments: 0...12)
  func loads(count: Int) throws {
    var random = SeededRandom(seed: UInt64(count))
    let bytes = random.bytes(count)
    let packet = try Packet(copying: bytes, in: PacketPool(.init(slots: 4, hugePages: false)))
    for offset in offsets {
      #expect(outcome(count) { UInt64(try bytes.raw.loadUInt8(at: offset)) } == expected(bytes, 1, offset))
      #expect(outcome(count) { UInt64(try bytes.raw.loadUInt16(at: offset)) } == expected(bytes, 2, offset))
      #expect(outcome(count) { UInt64(try bytes.raw.loadUInt32(at: offset)) } == expected(bytes, 4, offset))
      #expect(outcome(count) { try bytes.raw.loadUInt64(at: offset) } == expected(bytes, 8, offset))
      #expect(outcome(count) { UInt64(try packet.loadUInt8(at: offset)) } == expected(bytes, 1, offset))
      #expect(outcome(count) { UInt64(try packet.loadUInt16(at: offset)) } == expected(bytes, 2, offset))
      #expect(outcome(count) { UInt64(try packet.loadUInt32(at: offset)) } == expected(bytes, 4, offset))
      #expect(outcome(count) { try packet.loadUInt64(at: offset) } == expected(bytes, 8, offset))
      #expect(packet[offset].map { UInt64($0) } == expected(bytes, 1, offset))
    }
    #expect([UInt8](packet) == bytes)
  }

  /// What a store of a value made of its width makes of the bytes, or the bytes as they were.
  private func stored(_ bytes: [UInt8], _ width: Int, _ offset: Int) -> [UInt8] {
    guard expected(bytes, width, offset) != nil else { return bytes }
    var changed = bytes
    changed.replaceSubrange(offset..<(offset + width), with: [1, 2, 3, 4, 5, 6, 7, 8].suffix(width))
    return changed
  }

  @Test("A store writes the field or nothing, at every offset", arguments: 0...12)
  func stores(count: Int) throws {
    let bytes = [UInt8](repeating: 0xEE, count: count)
    let pool = try PacketPool(.init(slots: 8, hugePages: false))
    let value: UInt64 = 0x0102_0304_0506_0708
    for offset in offsets {
      for width in [1, 2, 4, 8] {
        var plain = bytes
        _ = try? withMutableSpan(&plain) { span throws(PacketFormatError) in
          switch width {
          case 1: try span.storeUInt8(UInt8(truncatingIfNeeded: value), at: offset)
          case 2: try span.storeUInt16(UInt16(truncatingIfNeeded: value), at: offset)
          case 4: try span.storeUInt32(UInt32(truncatingIfNeeded: value), at: offset)
          default: try span.storeUInt64(value, at: offset)
          }
        }
        #expect(plain == stored(bytes, width, offset), "\(width) bytes at \(offset) of \(count)")
        var packet = try Packet(copying: bytes, in: pool)
        switch width {
        case 1: try? packet.storeUInt8(UInt8(truncatingIfNeeded: value), at: offset)
        case 2: try? packet.storeUInt16(UInt16(truncatingIfNeeded: value), at: offset)
        case 4: try? packet.storeUInt32(UInt32(truncatingIfNeeded: value), at: offset)
        default: try? packet.storeUInt64(value, at: offset)
        }
        #expect([UInt8](packet) == stored(bytes, width, offset), "\(width) bytes at \(offset) of \(count)")
      }
    }
  }

  @Test("A run of bytes is stored whole or not at all")
  func runs() throws {
    for (offset, fits) in [(0, true), (2, true), (3, false), (-1, false), (Int.max, false)] {
      var bytes = [UInt8](repeating: 0, count: 5)
      let source: [UInt8] = [7, 8, 9]
      let isDone =
        (try? withMutableSpan(&bytes) { span throws(PacketFormatError) in try span.store(source.raw, at: offset) })
        != nil
      #expect(isDone == fits)
      #expect(bytes.count { $0 != 0 } == (fits ? 3 : 0))
      if fits { #expect(Array(bytes[offset..<(offset + 3)]) == source) }
    }
  }

  @Test("A store into a frame that somebody else holds changes a copy; one that cannot be done copies nothing")
  func sharing() throws {
    let pool = try PacketPool(.init(slots: 4, hugePages: false))
    let kept = try Packet(copying: [1, 2, 3, 4], in: pool)
    var mine = kept
    expectError(.truncated) { try mine.storeUInt32(9, at: 1) }
    #expect(pool.copies == 0)
    try mine.storeUInt16(0x0909, at: 2)
    #expect(pool.copies == 1 && [UInt8](kept) == [1, 2, 3, 4] && [UInt8](mine) == [1, 2, 9, 9])
  }

  @Test("An error says where the field would have ended, and how many bytes there are")
  func text() {
    let bytes: [UInt8] = [1, 2, 3]
    let error = #expect(throws: PacketFormatError.self) { try bytes.raw.loadUInt16(at: 2) }
    #expect(error?.description == "truncated: 4 bytes, where 3 are possible")
  }
}
