/// A piece of zeroed memory of this process, aligned to a page: rings for a device that is here too.
@safe package final class RingBlock: Sendable {
  // Proof: an address; what lies there is used by the ring's two sides under the ring's rules.
  nonisolated(unsafe) package let pointer: UnsafeMutableRawPointer
  /// Whole pages.
  package let length: Int

  /// At least so many bytes.
  package init(bytes: Int) {
    length = (max(bytes, 1) + 4095) & ~4095
    unsafe pointer = .allocate(byteCount: length, alignment: 4096)
    unsafe pointer.initializeMemory(as: UInt8.self, repeating: 0, count: length)
  }

  // A device that did not confirm its reset may still write here: `Quarantine` then keeps it.
  deinit { unsafe pointer.deallocate() }

  /// As it is shared with a device.
  package var memory: VirtioMemory { unsafe VirtioMemory(pointer: pointer, length: length, owner: self) }
}
