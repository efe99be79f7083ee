#if Timing
import Benchmark
import CRingTwin
import Virtio

private let ringSize = 256
private let burst = 32

/// Both sides of a split ring, bursts of 32: the driver adds, the device takes and returns in one loop, the driver reaps.
func registerRingBenchmarks() {
  Benchmark("ring core, Swift") { benchmark in
    let memory = RingBlock()
    var rings = try Rings(memory)
    benchmark.startMeasurement()
    blackHole(try rings.run(packets: benchmark.scaledIterations.count))
    benchmark.stopMeasurement()
  }
  Benchmark("ring core, C twin") { benchmark in
    let memory = RingBlock()
    var region = twin_region(
      address: 0, length: UInt64(RingBlock.bufferBytes), host: memory.buffers.assumingMemoryBound(to: UInt8.self),
      writable: true)
    benchmark.startMeasurement()
    blackHole(
      twin_run(UInt32(ringSize), UInt32(burst), UInt64(benchmark.scaledIterations.count), true, memory.block, &region))
    benchmark.stopMeasurement()
  }
}

/// Memory for one ring and its buffers.
private final class RingBlock {
  static let bufferBytes = 64 * 2048
  let block: UnsafeMutableRawPointer
  let buffers: UnsafeMutableRawPointer

  init() {
    block = .allocate(byteCount: 16_384, alignment: 64)
    buffers = .allocate(byteCount: Self.bufferBytes, alignment: 4096)
  }

  deinit {
    block.deallocate()
    buffers.deallocate()
  }
}

/// Driver and device on the same ring, behind a pointer as a queue holds them.
private struct Rings: ~Copyable {
  struct Pair: ~Copyable {
    var driver: SplitDriverRing
    var device: SplitDeviceRing
  }

  let pair: UnsafeMutablePointer<Pair>
  let used = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: burst)
  let memory: GuestMemory

  init(_ block: RingBlock) throws {
    memory = try GuestMemory([
      GuestRegion(address: 0, length: UInt64(RingBlock.bufferBytes), host: block.buffers)
    ])
    var driver = try SplitDriverRing.Configuration(size: ringSize, block: block.block)
    driver.eventIndex = true
    var device = try SplitDeviceRing.Configuration(size: ringSize, block: block.block)
    device.eventIndex = true
    let made = Pair(driver: try driver.activate(), device: try device.activate())
    pair = .allocate(capacity: 1)
    pair.initialize(to: made)
  }

  deinit {
    pair.deinitialize(count: 1)
    pair.deallocate()
    used.deallocate()
  }

  mutating func run(packets: Int) throws -> UInt64 {
    var sum: UInt64 = 0
    var token: UInt64 = 0
    while token < packets {
      let first = token
      let added = pair.pointee.driver.add(count: burst, writable: true) { index in
        let position = UInt64(truncatingIfNeeded: index)
        return RingBuffer(address: position &* 2048, length: 1526, token: first &+ position)
      }
      token &+= UInt64(truncatingIfNeeded: added)
      pair.pointee.driver.publish()
      if pair.pointee.driver.needsKick() { sum &+= 1 }
      _ = try pair.pointee.device.serve(max: burst, in: memory) { chain in
        UInt32(truncatingIfNeeded: chain.segments[0].length)
      }
      pair.pointee.device.publishUsed()
      if pair.pointee.device.needsCall() { sum &+= 1 }
      let reaped = try pair.pointee.driver.reap(into: used, max: burst)
      for index in 0..<reaped { sum &+= used[index].token &+ UInt64(used[index].written) }
    }
    return sum
  }
}
#endif
