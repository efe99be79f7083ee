import FuzzSupport

/// Scripts that go right, of each side, in several shapes; the fuzzer makes of them what goes wrong.
let ringSeeds: [[UInt8]] = {
  var seeds: [[UInt8]] = []
  for flags in [UInt8(0), 2, 4, 6, 8, 0x4e] {
    // Sizes 1, 8, 256; two chains and a burst out, published, returned, taken back in each way, drained.
    for (side, size) in [(UInt8(0), UInt8(0)), (0, 3), (0, 8), (3, 1), (3, 2), (3, 8)] {
      seeds.append(
        [side, flags, size, 0xfe, 0xff] + [0, 1, 100, 2, 1, 2, 3, 4, 5, 6, 7, 8] + [2, 5, 5, 1] + [
          3, 1, 2, 10, 20, 2, 30, 40,
        ]
          + [4, 6, 7, 7, 14, 14, 16, 40, 18, 5, 7, 7, 17, 20, 15] + [19, 3, 0, 5, 0])
    }
  }
  for flags in [UInt8(0), 2, 4, 8, 0x1a, 0x2c, 0x40, 0x80] {
    // A chain of two buffers and one in a table, offered, taken, returned.
    let descriptors: [UInt8] = [
      0, 0, 0, 0, 1, 20, 1, 1, 1, 1, 0, 0, 8, 30, 2, 0, 0, 2, 7, 0, 2, 4, 0, 2, 0, 0, 0, 2, 5, 0, 0,
    ]
    let areas: [UInt8] = flags == 0x80 ? [0, 0, 0, 0, 0, 16, 0, 0, 32] : []
    for side in [UInt8(1), 4] {
      seeds.append(
        [side, flags, 4] + areas + [0, 0] + descriptors + [
          3, 0, 3, 2, 6, 10, 11, 0, 40, 11, 0, 40, 13, 9, 1, 0, 0, 0, 14, 15,
        ]
          + [3, 0, 6, 18, 9, 0, 9, 17, 1, 19, 9, 0, 9, 16, 14, 20, 0, 1, 0])
    }
  }
  for flags in [UInt8(0), 4, 8, 0x10, 0x18, 2, 1] {
    // Buffers, then frames in one to three pieces, with and without offloads.
    let features: [UInt8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
    let buffers: [UInt8] = [0, 0xfc, 0, 0, 0xfd, 4, 0, 0xfe, 8]
    let frames: [UInt8] = [1, 0x20, 0, 0, 1, 0x21, 4, 12, 1, 1, 0, 0, 8, 0, 14, 0, 6, 0, 0, 0, 1, 0x42, 8, 0]
    for side in [UInt8(2), 5] {
      seeds.append(
        [side, flags] + features + [0xfd, 0xff, 5, 8] + buffers + frames + [20, 21, 22, 24] + frames + [24])
      seeds.append([side, flags] + [0, 0, 0, 0, 0, 0, 0, 0] + [0, 0, 3, 1] + buffers + frames + [24] + frames + [24])
    }
  }
  // Found once: a frame that waited for ever, because the receive buffers were in more pieces than a batch takes.
  seeds.append(
    Seeds.hex(
      "020400ffffffffffffffffffffffffffffff000000000000000000030100fc0000fd010000400400fe08ff0001640000"
        + "0000000000000000000000000221040c010100000800000e00060000000142080018012000000121040c0101000008f8"
        + "f1fff90000000142080018"))
  return seeds
}()
