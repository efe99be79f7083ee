internal import Virtio

/// Where a pair's parts lie in its piece of the ring memory: both rings, indirect tables, the header of zeros.
struct PairMemoryMap {
  let layout: RingLayout
  let indirectCapacity: Int

  init(layout: RingLayout, indirect: Bool) {
    self.layout = layout
    indirectCapacity = indirect ? min(8, Int(layout.size)) : 0
  }

  /// From the receive ring to the transmit ring: whole cache lines.
  var ringStride: Int { (layout.totalBytes + 63) & ~63 }
  var indirectOffset: Int { 2 * ringStride }
  var headerOffset: Int { indirectOffset + 16 * indirectCapacity * Int(layout.size) }
  /// Whole pages: no two pairs share one.
  var totalBytes: Int { (headerOffset + 64 + 4095) & ~4095 }
}
