import Testing
import Virtio

/// What a ring may be made of, and what is found out before it exists.
@Suite struct SplitRingConfigurationTests {
  @Test("Driver rule 7: the size of a split ring is a power of two from 1 to 32768")
  func size() throws {
    for size in [0, -1, 3, 6, 255, 257, 32769, 65536, .max, .min] {
      let error = violation { () throws(RingError) in _ = try RingLayout(.split, size: size) }
      #expect(error == RingError(.size, UInt64(truncatingIfNeeded: size)))
    }
    for shift in 0...15 { #expect(try RingLayout(.split, size: 1 << shift).size == 1 << UInt16(shift)) }
  }

  @Test("§2.7: sizes and alignments of the three areas")
  func layout() throws {
    let layout = try RingLayout(.split, size: 256)
    #expect(layout.descriptorBytes == 4096)
    #expect(layout.driverBytes == 6 + 512)
    #expect(layout.deviceBytes == 6 + 2048)
    #expect(layout.driverOffset % 2 == 0 && layout.deviceOffset % 4 == 0)
    #expect(layout.deviceOffset >= layout.driverOffset + layout.driverBytes)
    #expect(layout.totalBytes == layout.deviceOffset + layout.deviceBytes)
  }

  @Test("§2.7: unaligned and overlapping areas are refused on both sides, and nothing is written")
  func areas() throws {
    let layout = try RingLayout(.split, size: 8)
    let block = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
    defer { unsafe block.deallocate() }
    unsafe block.initializeMemory(as: UInt8.self, repeating: 0xa5, count: 4096)
    func check(_ descriptors: Int, _ avail: Int, _ used: Int, _ rule: RingError.Rule?) {
      let driver = violation { () throws(RingError) in
        _ = try unsafe SplitDriverRing.Configuration(
          RingAreas(size: 8, descriptors: block + descriptors, driver: block + avail, device: block + used)
        ).activate()
      }
      let device = violation { () throws(RingError) in
        _ = try unsafe SplitDeviceRing.Configuration(
          RingAreas(size: 8, descriptors: block + descriptors, driver: block + avail, device: block + used)
        ).activate()
      }
      #expect(driver?.rule == rule)
      #expect(device?.rule == rule)
    }
    let bytes = layout.descriptorBytes
    check(8, 1024, 2048, .descriptorAlignment)
    check(0, 1025, 2048, .driverAlignment)
    check(0, 1024, 2050, .deviceAlignment)
    check(0, bytes - 2, 2048, .areaOverlap)
    check(0, 1024, 1024 + 20, .areaOverlap)
    check(0, 1024, 64, .areaOverlap)
    check(0, 0, 2048, .areaOverlap)
    #expect((0..<4096).allSatisfy { unsafe block.load(fromByteOffset: $0, as: UInt8.self) == 0xa5 })
    check(0, bytes, bytes + 24, nil)
  }

  @Test("Device attack: ring addresses outside memory, or a used ring that cannot be written")
  func addresses() throws {
    let host = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
    defer { unsafe host.deallocate() }
    let memory = try unsafe GuestMemory([
      GuestRegion(address: 0x1000, length: 4096, host: host),
      GuestRegion(address: 0x9000, length: 4096, host: host + 4096, isWritable: false),
    ])
    let cases: [(Int, UInt64, UInt64, UInt64, RingError?)] = [
      (16, 0x1000, 0x1200, 0x1400, nil),
      (16, 0x9000, 0x9200, 0x1400, nil),
      (7, 0x1000, 0x1200, 0x1400, RingError(.size, 7)),
      (16, 0x1f10, 0x1200, 0x1400, RingError(.areaUnmapped, 0x1f10)),
      (16, 0x1000, 0x3000, 0x1400, RingError(.areaUnmapped, 0x3000)),
      (16, 0x1000, 0x1200, 0x9400, RingError(.areaUnmapped, 0x9400)),
      (16, 0x1000, 0x1200, .max - 3, RingError(.areaUnmapped, .max - 3)),
      (32768, 0x1000, 0x1200, 0x1400, RingError(.areaUnmapped, 0x1000)),
    ]
    for (size, descriptors, avail, used, expected) in cases {
      var error: RingError?
      do throws(RingError) {
        let areas = try RingAreas(
          .split, size: size, descriptorAddress: descriptors, driverAddress: avail, deviceAddress: used,
          memory: memory)
        _ = try SplitDeviceRing.Configuration(areas).activate()
      } catch let refusal {
        error = refusal
      }
      #expect(error == expected)
    }
  }

  @Test("Driver rule 17: memory for indirect tables is aligned and holds at least two descriptors")
  func indirectMemory() throws {
    let block = try RingBlock(size: 4)
    let cases: [(Int, UInt64, Int, Bool)] = [
      (0, 0x1000, 8, true), (8, 0x1000, 8, false), (0, 0x1008, 8, false), (0, 0x1000, 1, false), (0, 0x1000, -1, false),
      (0, 0x1000, 32769, false),
    ]
    for (offset, address, capacity, isGood) in cases {
      let error = violation { () throws(RingError) in
        var configuration = try unsafe SplitDriverRing.Configuration(size: 4, block: block.block)
        configuration.indirect = unsafe IndirectTables(
          host: block.buffers + offset, address: address, capacity: capacity)
        _ = try configuration.activate()
      }
      #expect(error?.rule == (isGood ? nil : .indirectMemory))
    }
  }
}
