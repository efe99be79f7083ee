internal import CNetdevSystem
package import Netdev

/// A memfd for rings, zeroed, mapped and sealed against shrinking: a back-end maps it, and no truncation can hurt either side.
@safe package final class RingFile: Sendable {
  // Proof: an address; what lies there is used by the ring's two sides under the ring's rules.
  nonisolated(unsafe) package let pointer: UnsafeMutableRawPointer
  package let descriptor: CInt
  package let length: Int

  /// - Throws: `outOfMemory`.
  package init(bytes: Int) throws(NetworkDeviceError) {
    length = (max(bytes, 1) + 4095) & ~4095
    descriptor = unsafe netdev_memfd_create("netdev-rings", length, false)
    guard descriptor >= 0, let mapped = unsafe netdev_map_shared(descriptor, length) else {
      if descriptor >= 0 { netdev_close(descriptor) }
      throw NetworkDeviceError(.outOfMemory, "making rings", offered: "\(length) bytes of shared memory were asked for")
    }
    unsafe pointer = mapped
  }

  deinit {
    // A back-end that still uses it has a mapping of its own.
    unsafe netdev_unmap(pointer, length)
    netdev_close(descriptor)
  }

  /// As it is shared with a device.
  package var memory: VirtioMemory {
    unsafe VirtioMemory(pointer: pointer, length: length, descriptor: descriptor, owner: self)
  }
}
