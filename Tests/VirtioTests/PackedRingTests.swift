import CNetdevSystem
import RingThreads
import Testing
import Virtio

/// What lies in the memory of a packed ring, byte for byte as VIRTIO 1.4 §2.8 has it.
@Suite struct PackedRingTests {
  /// A descriptor of the ring.
  struct Descriptor: Equatable {
    var address: UInt64
    var length: UInt32
    var id: UInt16
    var flags: UInt16

    init(_ address: UInt64, _ length: UInt32, id: UInt16, _ flags: UInt16) {
      (self.address, self.length, self.id, self.flags) = (address, length, id, flags)
    }

    init(_ place: RingPlace, _ index: Int) {
      let descriptor = unsafe place.block + 16 * index
      address = unsafe netdev_load_relaxed_u64(descriptor)
      length = unsafe netdev_load_relaxed_u32(descriptor + 8)
      id = unsafe netdev_load_relaxed_u16(descriptor + 12)
      flags = unsafe netdev_load_relaxed_u16(descriptor + 14)
    }
  }

  static let avail: UInt16 = 1 << 7
  static let used: UInt16 = 1 << 15

  private func place(_ size: Int, eventIndex: Bool = true, inOrder: Bool = false) throws -> RingPlace {
    try RingPlace(RingSetting(format: .packed, size: size, eventIndex: eventIndex, inOrder: inOrder))
  }

  @Test("Driver rule 7: a packed ring has any size up to 32768; its areas are aligned to 16, 4 and 4")
  func layout() throws {
    for size in [0, -1, 32769, .max, .min] {
      let error = violation { () throws(RingError) in _ = try RingLayout(.packed, size: size) }
      #expect(error == RingError(.size, UInt64(truncatingIfNeeded: size)))
    }
    for size in [1, 2, 3, 257, 32767, 32768] {
      let layout = try RingLayout(.packed, size: size)
      #expect(Int(layout.size) == size && layout.descriptorBytes == 16 * size)
      #expect(layout.driverBytes == 4 && layout.deviceBytes == 4)
      #expect(layout.driverOffset >= 16 * size && layout.driverOffset % 4 == 0)
      #expect(layout.deviceOffset >= layout.driverOffset + 64, "the sides write lines of their own")
    }
    #expect(RingLayout.largestSize(.packed, upTo: 300) == 300 && RingLayout.largestSize(.split, upTo: 300) == 256)
    #expect(RingLayout.largestSize(.packed, upTo: 1 << 20) == 32768 && RingLayout.largestSize(.split, upTo: 0) == 0)
    let place = try place(4)
    for (offset, rule) in [(2, RingError.Rule.driverAlignment), (0, nil)] {
      let error = violation { () throws(RingError) in
        _ = try unsafe PackedDriverRing.Configuration(
          RingAreas(size: 4, descriptors: place.block, driver: place.block + 64 + offset, device: place.block + 128)
        ).activate()
      }
      #expect(error?.rule == rule)
    }
    let error = violation { () throws(RingError) in
      var configuration = try unsafe PackedDriverRing.Configuration(size: 3, block: place.block)
      configuration.startIndex = 3
      _ = try configuration.activate()
    }
    #expect(error == RingError(.startIndex, 3))
  }

  @Test(
    "Driver rule 15: wrap counters start at 1; the first descriptor is shown last; a lap later the marks are reversed")
  func marks() throws {
    let place = try place(3)
    let memory = try place.memory()
    var ring = try place.driver(PackedDriverRing.self)
    var device = try place.device(PackedDeviceRing.self)
    for token: UInt64 in 0..<2 { _ = ring.add(address: 100 + token, length: 9, writable: true, token: token) }
    #expect(Descriptor(place, 0) == Descriptor(100, 9, id: 0, 0), "not available yet")
    #expect(Descriptor(place, 1) == Descriptor(101, 9, id: 1, 2 | Self.avail))
    #expect(ring.publishedIndex == 0x8000)
    ring.publish()
    #expect(Descriptor(place, 0) == Descriptor(100, 9, id: 0, 2 | Self.avail) && ring.publishedIndex == 0x8002)
    // The addresses lie outside: returned empty, in turn.
    for _ in 0..<2 { _ = try? device.take(max: 1, in: memory) }
    device.publishUsed()
    #expect(Descriptor(place, 0).flags == Self.avail | Self.used && Descriptor(place, 0).length == 0)
    let taken = try ring.reap(max: 3)
    #expect(taken.map(\.token) == [0, 1])
    for token: UInt64 in 2..<5 { _ = ring.add(address: 100 + token, length: 9, writable: false, token: token) }
    ring.publish()
    #expect(Descriptor(place, 2) == Descriptor(102, 9, id: 2, Self.avail))
    #expect(Descriptor(place, 0).flags == Self.used && Descriptor(place, 1).flags == Self.used)
    #expect(ring.publishedIndex == 2, "the wrap counter is 0 now")
  }

  @Test("Driver rule 15: a chain across the end changes its marks inside, and has one id; indirect ones take one place")
  func chains() throws {
    let place = try place(4)
    let memory = try place.memory()
    var ring = try place.driver(PackedDriverRing.self, indirect: true)
    var device = try place.device(PackedDeviceRing.self)
    let base = RingPlace.bufferBase
    let parts = (0..<3).map { RingBuffer(address: base + UInt64($0), length: 1) }
    let isIndirect = try ring.add(
      readable: parts.span.extracting(..<1), writable: parts.span.extracting(1...), token: 7)
    ring.publish()
    #expect(isIndirect && ring.freeCount == 3)
    let tables = base + UInt64(RingPlace.bufferBytes)
    #expect(Descriptor(place, 0) == Descriptor(tables, 48, id: 0, 4 | Self.avail))
    let words = (0..<3).map { unsafe (place.buffers + RingPlace.bufferBytes + 16 * $0 + 8).load(as: UInt64.self) }
    #expect(words == [1, 1 | 2 << 48, 1 | 2 << 48], "only WRITE means anything in there")
    var chain = try #require(try device.take(max: 1, in: memory).first)
    #expect(chain.readableCount == 1 && chain.writableCount == 2)
    device.pushUsed(chain, written: 2)
    // As many as the ring has go into the ring itself (trap 8).
    let four = (0..<4).map { RingBuffer(address: base + UInt64($0), length: UInt32($0)) }
    let none = try ring.add(readable: four.span, writable: [RingBuffer]().span, token: 8)
    #expect(!none)
    device.publishUsed()
    let used = try ring.nextUsed()
    #expect(used == UsedBuffer(token: 7, written: 2))
    let isDirect = try ring.add(readable: four.span, writable: [RingBuffer]().span, token: 8)
    ring.publish()
    let flags = [1, 2, 3, 0].map { Descriptor(place, $0).flags }
    #expect(isDirect && flags == [1 | Self.avail, 1 | Self.avail, 1 | Self.avail, Self.used])
    #expect(Set((0..<4).map { Descriptor(place, $0).id }).count == 1)
    chain = try #require(try device.take(max: 1, in: memory).first)
    #expect(chain.readableCount == 4 && chain.readableLength == 6)
    device.pushUsed(chain, written: 0)
    device.publishUsed()
    #expect(Descriptor(place, 1).flags == Self.avail | Self.used, "one used descriptor, where the first was")
    #expect(Descriptor(place, 2).flags == 1 | Self.avail && device.nextAvailIndex == 1)
    let last = try ring.nextUsed()
    #expect(last == UsedBuffer(token: 8, written: 0) && ring.freeCount == 4)
  }

  @Test("§2.8.8: with IN_ORDER what was only read comes back as one used descriptor of the last one's id")
  func batch() throws {
    let place = try place(8, inOrder: true)
    let memory = try place.memory()
    var ring = try place.driver(PackedDriverRing.self)
    var device = try place.device(PackedDeviceRing.self)
    let added = ring.add(count: 5, writable: false) {
      RingBuffer(address: RingPlace.bufferBase, length: 9, token: UInt64($0))
    }
    ring.publish()
    for chain in try device.take(max: 5, in: memory) { device.pushUsed(chain, written: 0) }
    device.publishUsed()
    #expect(added == 5 && Descriptor(place, 0).id == 4 && Descriptor(place, 0).flags == Self.avail | Self.used)
    #expect((1..<5).allSatisfy { Descriptor(place, $0).flags == Self.avail })
    let two = try ring.reap(max: 2)
    let rest = try ring.reap(max: 8)
    #expect(two.map(\.token) == [0, 1] && rest.map(\.token) == [2, 3, 4] && ring.freeCount == 8)
  }

  @Test("§2.8.4: without WRITE the length of a chain that nobody may write to means nothing")
  func reservedLength() throws {
    let place = try place(4)
    var ring = try place.driver(PackedDriverRing.self)
    for flags: UInt16 in [0, 2] {
      _ = ring.add(address: 1, length: 9, writable: false, token: 3)
      ring.publish()
      let index = Int(flags / 2)
      unsafe netdev_store_relaxed_u32(place.block + 16 * index + 8, 77)
      unsafe netdev_store_release_u16(place.block + 16 * index + 14, flags | Self.avail | Self.used)
      var error: RingError?
      do throws(RingError) {
        let used = try ring.reap(max: 4)
        #expect(used == [UsedBuffer(token: 3, written: 0)])
      } catch let thrown { error = thrown }
      #expect(error == (flags == 0 ? nil : RingError(.usedLengthTooLong, 77)))
    }
  }

  /// The word of event suppression.
  private func word(_ place: RingPlace, _ offset: Int) -> UInt32 {
    unsafe netdev_load_relaxed_u32(place.block + offset)
  }

  @Test("§2.8.10: the words of event suppression, with EVENT_IDX and without")
  func suppression() throws {
    for eventIndex in [false, true] {
      let place = try place(3, eventIndex: eventIndex)
      let memory = try place.memory()
      let (driverWord, deviceWord) = (place.layout.driverOffset, place.layout.deviceOffset)
      var ring = try place.driver(PackedDriverRing.self)
      var device = try place.device(PackedDeviceRing.self)
      #expect(word(place, driverWord) == 0 && word(place, deviceWord) == 0)
      ring.disarmInterrupt()
      device.disarmKick()
      #expect(word(place, driverWord) == 1 << 16 && word(place, deviceWord) == 1 << 16)
      let first = ring.add(count: 2, writable: false) {
        RingBuffer(address: RingPlace.bufferBase, length: 1, token: UInt64($0))
      }
      ring.publish()
      let unconditional = ring.needsKick()
      #expect(first == 2 && unconditional)
      let armed = ring.armInterrupt(after: 2)
      #expect(!armed && word(place, driverWord) == (eventIndex ? 2 << 16 | 0x8001 : 0))
      let busy = device.armKick()
      #expect(busy)
      _ = try device.serve(max: 2, in: memory) { _ in 0 }
      device.publishUsed()
      let idle = device.armKick()
      #expect(!idle && word(place, deviceWord) == (eventIndex ? 2 << 16 | 0x8002 : 0))
      device.disarmKick()
      _ = try ring.reap(max: 2)
      _ = ring.add(address: RingPlace.bufferBase, length: 1, writable: false, token: 9)
      ring.publish()
      let unwanted = ring.needsKick()
      #expect(!unwanted)
      // Reserved flags mean that it is told.
      unsafe netdev_store_relaxed_u32(place.block + deviceWord, 3 << 16)
      _ = ring.add(address: RingPlace.bufferBase, length: 1, writable: false, token: 9)
      ring.publish()
      let wanted = ring.needsKick()
      #expect(wanted)
    }
  }

  @Test("Rule 11, both sides: an event in off_wrap is hit when passed: sizes 1 to 8, all offsets, wraps and advances")
  func offWrap() throws {
    for size in 1...8 {
      for start in 0..<size {
        for wrap in [false, true] {
          for advance in 1...size {
            for event in 0..<(2 * size) {
              // The other side asks for the descriptor `event` places ahead of where this one is, up to two laps.
              let place = (start + event) % size
              let laps = (start + event) / size
              let eventWrap = laps % 2 == 0 ? wrap : !wrap
              // What lies a whole lap ahead cannot be told from what lies behind: nobody asks for that.
              guard event < size else { continue }
              let offWrap = UInt16(place) | (eventWrap ? 0x8000 : 0)
              for side in RingSide.allCases {
                let passed = EventIndexProbe.isPassed(
                  side, offWrap: offWrap, advance: advance, from: start, wrap: wrap, size: size)
                #expect(
                  passed == (event < advance), "\(side): size \(size), from \(start), \(event) ahead, by \(advance)")
              }
            }
          }
        }
      }
    }
  }
}

/// Who tells the other.
enum RingSide: CaseIterable { case driver, device }

/// Asks a ring of its own, whose first notifications are over.
enum EventIndexProbe {
  /// Whether a side at `start` that makes `advance` descriptors available, or uses them, tells the other, which asked for `offWrap`.
  static func isPassed(
    _ side: RingSide, offWrap: UInt16, advance: Int, from start: Int, wrap: Bool, size: Int
  ) -> Bool {
    // One lap and a bit before, so that what is unconditional is behind us.
    let before = (start + size - 1) % size
    let beforeWrap = start == 0 ? !wrap : wrap
    guard
      let place = try? RingPlace(
        RingSetting(format: .packed, size: size, startIndex: UInt16(before) | (beforeWrap ? 0x8000 : 0))),
      var driver = try? place.driver(PackedDriverRing.self), var device = try? place.device(PackedDeviceRing.self),
      let memory = try? place.memory()
    else { return false }
    let buffer = RingBuffer(address: RingPlace.bufferBase, length: 1)
    _ = driver.add(count: 1, writable: false) { _ in buffer }
    driver.publish()
    _ = driver.needsKick()
    _ = try? device.serve(max: 1, in: memory) { _ in 0 }
    device.publishUsed()
    _ = device.needsCall()
    _ = try? driver.reap(max: 1)
    let word = unsafe place.block + (side == .driver ? place.layout.deviceOffset : place.layout.driverOffset)
    unsafe netdev_store_relaxed_u32(word, UInt32(offWrap) | 2 << 16)
    _ = driver.add(count: advance, writable: false) { _ in buffer }
    driver.publish()
    if side == .driver { return driver.needsKick() }
    _ = try? device.serve(max: advance, in: memory) { _ in 0 }
    device.publishUsed()
    return device.needsCall()
  }
}
