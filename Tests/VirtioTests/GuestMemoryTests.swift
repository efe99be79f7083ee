import Testing
import Virtio

/// From an address of the peer to a pointer: the one gate.
@Suite struct GuestMemoryTests {
  /// Two adjacent regions, a gap, a read-only one, and one at the very end of the address space.
  private func withMemory(_ body: (borrowing GuestMemory, UnsafeMutableRawPointer) throws -> Void) throws {
    let host = UnsafeMutableRawPointer.allocate(byteCount: 0x10000, alignment: 4096)
    defer { unsafe host.deallocate() }
    let memory = unsafe try GuestMemory([
      GuestRegion(address: 0x1000, length: 0x1000, host: host),
      GuestRegion(address: 0x2000, length: 0x2000, host: host + 0x4000),
      GuestRegion(address: 0x8000, length: 0x1000, host: host + 0x8000, isWritable: false),
      GuestRegion(address: 0xffff_ffff_ffff_f000, length: 0x1000, host: host + 0x9000),
    ])
    try unsafe body(memory, host)
  }

  /// Expects a look-up for reading to fail so, or to succeed with nil.
  private func expect(
    _ memory: borrowing GuestMemory, _ address: UInt64, _ length: UInt64, _ expected: GuestMemoryError?
  ) {
    var refusal: GuestMemoryError?
    do throws(GuestMemoryError) {
      _ = try unsafe memory.translate(address, length: length, forWriting: false)
    } catch {
      refusal = error
    }
    #expect(refusal == expected)
  }

  @Test("Device rule 5: an address inside is translated, in every region")
  func inside() throws {
    try unsafe withMemory { memory, host in
      #expect(unsafe memory.pointer(to: 0x1000, length: 0x1000, forWriting: true) == host)
      #expect(unsafe memory.pointer(to: 0x2fff, length: 1, forWriting: true) == host + 0x4fff)
      #expect(unsafe memory.pointer(to: 0x8800, length: 0x800, forWriting: false) == host + 0x8800)
      #expect(unsafe memory.pointer(to: 0xffff_ffff_ffff_ffff, length: 1, forWriting: true) == host + 0x9fff)
      let second = try unsafe memory.translate(0x3000, length: 0x1000, forWriting: true)
      #expect(unsafe second == host + 0x5000)
    }
  }

  @Test("Device rule 5: overflow, holes and ranges across two regions are refused by name (CVE-2018-1059)")
  func refused() throws {
    try unsafe withMemory { memory, _ in
      expect(memory, 0xfff, 1, .unmapped(address: 0xfff))
      expect(memory, 0x4000, 1, .unmapped(address: 0x4000))
      expect(memory, 0x1fff, 2, .spansRegions(address: 0x1fff, length: 2))
      expect(memory, 0x3fff, 2, .spansRegions(address: 0x3fff, length: 2))
      expect(memory, 0xffff_ffff_ffff_ffff, 2, .overflow(address: .max, length: 2))
      expect(memory, 0x1000, .max, .overflow(address: 0x1000, length: .max))
      expect(memory, 0xffff_ffff_ffff_f000, 0x1000, nil)
      for address: UInt64 in [0, 0xfff, 0x1fff, 0x3fff, 0x4000, 0x7fff, 0xffff_ffff_ffff_efff, .max] {
        #expect(unsafe memory.pointer(to: address, length: 2, forWriting: false) == nil, "at \(address)")
        #expect(unsafe memory.pointer(to: address, length: .max, forWriting: false) == nil, "at \(address)")
      }
    }
  }

  @Test("Device rule 6: nothing is written where the mapping is read-only")
  func readOnly() throws {
    try unsafe withMemory { memory, _ in
      #expect(unsafe memory.pointer(to: 0x8000, length: 16, forWriting: true) == nil)
      do throws(GuestMemoryError) {
        _ = try unsafe memory.translate(0x8000, length: 16, forWriting: true)
        Issue.record("a read-only region was opened for writing")
      } catch {
        #expect(error == .readOnly(address: 0x8000))
      }
    }
  }

  @Test("A length of zero lies at every mapped address, and nowhere else")
  func zero() throws {
    try unsafe withMemory { memory, host in
      #expect(unsafe memory.pointer(to: 0x3000, length: 0, forWriting: true) == host + 0x5000)
      #expect(unsafe memory.pointer(to: 0x4000, length: 0, forWriting: true) == host + 0x6000)
      #expect(unsafe memory.pointer(to: 0x6000, length: 0, forWriting: true) == nil)
    }
  }

  @Test("A table of regions is checked: empty, overlapping, running past the end, too many")
  func table() throws {
    let host = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 16)
    defer { unsafe host.deallocate() }
    func check(_ regions: [(UInt64, UInt64)]) -> GuestMemoryError? {
      violation { () throws(GuestMemoryError) in
        _ = try GuestMemory(regions.map { unsafe GuestRegion(address: $0.0, length: $0.1, host: host) })
      }
    }
    #expect(check([]) == nil)
    #expect(check([(0, 0)]) == .badRegion(address: 0, length: 0))
    #expect(check([(0, 16), (15, 1)]) == .badRegion(address: 15, length: 1))
    #expect(check([(0, 16), (16, 16)]) == nil)
    #expect(check([(.max, 2)]) == .badRegion(address: .max, length: 2))
    #expect(check([(0, .max)]) == .badRegion(address: 0, length: .max))
    #expect(check((0..<65).map { (UInt64($0) * 16, 16) }) == .tooManyRegions(65))
    #expect(check((0..<64).map { (UInt64($0) * 16, 16) }) == nil)
    let none = try GuestMemory([])
    #expect(unsafe none.pointer(to: 0, length: 1, forWriting: false) == nil)
  }
}
