// Runs the ring core, driver and device side, for a number of packets: what `count.sh` counts.
//
//     CountRing swift|c pop|serve BURST PACKETS
//
// With `pop` the device takes a burst and then returns it, with `serve` it does both in one loop.
// It prints the allocations of the loop. Its main is synchronous: what runs is what was asked for, and valgrind can follow.
import CAllocationCounter
import CRingTwin
import Glibc
import Virtio

/// Both sides of one ring and what a device and a driver keep beside it.
struct Work: ~Copyable {
  let pair: UnsafeMutablePointer<RingPair>
  let chains = UnsafeMutablePointer<DescriptorChain>.allocate(capacity: 64)
  let used = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: 64)
  var sum: UInt64 = 0
  var notified: UInt64 = 0

  init(_ rings: consuming RingPair) {
    pair = .allocate(capacity: 1)
    pair.initialize(to: rings)
  }

  deinit {
    pair.deinitialize(count: 1)
    pair.deallocate()
    chains.deallocate()
    used.deallocate()
  }

  /// The driver adds and publishes a burst of full buffers.
  @inline(__always)
  mutating func submit(burst: Int, from first: UInt64) -> UInt64 {
    let added = pair.pointee.driver.add(count: burst, writable: true) { index in
      let position = UInt64(truncatingIfNeeded: index)
      return RingBuffer(address: position &* 2048, length: 1526, token: first &+ position)
    }
    pair.pointee.driver.publish()
    if pair.pointee.driver.needsKick() { notified &+= 1 }
    return UInt64(truncatingIfNeeded: added)
  }

  /// The device has used a burst; the driver takes it back.
  @inline(__always)
  mutating func complete(burst: Int) throws {
    pair.pointee.device.publishUsed()
    if pair.pointee.device.needsCall() { notified &+= 1 }
    let reaped = try pair.pointee.driver.reap(into: used, max: burst)
    for index in 0..<reaped { sum &+= used[index].token &+ UInt64(used[index].written) }
  }

  /// Packets through both sides; the device takes a burst and then returns it.
  @inline(never)
  mutating func pop(burst: Int, packets: UInt64, memory: borrowing GuestMemory) throws {
    var token: UInt64 = 0
    while token < packets {
      token &+= submit(burst: burst, from: token)
      let popped = try pair.pointee.device.pop(into: chains, max: burst, in: memory)
      let chains = chains
      pair.pointee.device.pushUsed(count: popped) { index in
        let chain = chains[index]
        return (chain.head, UInt32(truncatingIfNeeded: chain.segments[0].length))
      }
      try complete(burst: burst)
    }
  }

  /// Packets through both sides; the device takes and returns in one loop.
  @inline(never)
  mutating func serve(burst: Int, packets: UInt64, memory: borrowing GuestMemory) throws {
    var token: UInt64 = 0
    while token < packets {
      token &+= submit(burst: burst, from: token)
      _ = try pair.pointee.device.serve(max: burst, in: memory) { chain in
        UInt32(truncatingIfNeeded: chain.segments[0].length)
      }
      try complete(burst: burst)
    }
  }
}

/// Both sides of a ring as a queue holds them: in one place, behind a pointer.
struct RingPair: ~Copyable {
  var driver: SplitDriverRing
  var device: SplitDeviceRing
}

/// A driver ring laid in `block`, with EVENT_IDX.
func makeDriver(size: Int, block: UnsafeMutableRawPointer) throws -> SplitDriverRing {
  var configuration = try SplitDriverRing.Configuration(size: size, block: block)
  configuration.eventIndex = true
  return try configuration.activate()
}

/// The device ring in the same memory.
func makeDevice(size: Int, block: UnsafeMutableRawPointer) throws -> SplitDeviceRing {
  var configuration = try SplitDeviceRing.Configuration(size: size, block: block)
  configuration.eventIndex = true
  return try configuration.activate()
}

let arguments = CommandLine.arguments
guard arguments.count == 5, ["swift", "c"].contains(arguments[1]), ["pop", "serve"].contains(arguments[2]),
  let burst = Int(arguments[3]), (1...64).contains(burst), let packets = UInt64(arguments[4])
else {
  print("usage: CountRing swift|c pop|serve BURST PACKETS (BURST from 1 to 64)")
  exit(2)
}
let serves = arguments[2] == "serve"
let size = 256
let bytes = 64 * 2048
let layout = try SplitRingLayout(size: size)
let block = UnsafeMutableRawPointer.allocate(byteCount: layout.totalBytes, alignment: 64)
let buffers = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
let before = netdev_allocation_count()
let sum: UInt64
if arguments[1] == "swift" {
  let memory = try GuestMemory([GuestRegion(address: 0, length: UInt64(bytes), host: buffers)])
  let driver = try makeDriver(size: size, block: block)
  let device = try makeDevice(size: size, block: block)
  var work = Work(RingPair(driver: driver, device: device))
  if serves {
    try work.serve(burst: burst, packets: packets, memory: memory)
  } else {
    try work.pop(burst: burst, packets: packets, memory: memory)
  }
  sum = work.sum &+ work.notified << 48
} else {
  var region = twin_region(
    address: 0, length: UInt64(bytes), host: buffers.assumingMemoryBound(to: UInt8.self), writable: true)
  sum = twin_run(UInt32(size), UInt32(burst), packets, serves, block, &region)
}
print("allocations \(netdev_allocation_count() - before) checksum \(sum)")
