// Runs bursts through a transmit ring and a receive ring, driver's and device's side, for a number of packets: what `count.sh`
// counts.
//
//     CountRing swift|c split|packed any|in-order loop|transmit BURST PACKETS
//
// With `loop` the device carries each frame from the one ring to the other, with `transmit` it takes it and releases it. The
// functions are those that the driver and the engine call. It prints the allocations of the loop. Its main is synchronous: what
// runs is what was asked for, and valgrind can follow.
import CAllocationCounter
import Glibc
import RingLoop
import Virtio

let arguments = CommandLine.arguments
guard arguments.count == 7, ["swift", "c"].contains(arguments[1]), ["split", "packed"].contains(arguments[2]),
  ["any", "in-order"].contains(arguments[3]), ["loop", "transmit"].contains(arguments[4]),
  let burst = Int(arguments[5]), (1...64).contains(burst), let packets = UInt64(arguments[6])
else {
  print("usage: CountRing swift|c split|packed any|in-order loop|transmit BURST PACKETS (BURST from 1 to 64)")
  exit(2)
}
let setting = RingLoopSetting(
  arguments[2] == "packed" ? .packed : .split, inOrder: arguments[3] == "in-order",
  transmits: arguments[4] == "transmit")
let memory = RingLoopMemory()
let loop: any RingLoop = arguments[1] == "c" ? TwinLoop(setting, memory) : try makeRingLoop(setting, memory)
let before = netdev_allocation_count()
try loop.run(burst: burst, packets: packets)
print("allocations \(netdev_allocation_count() - before) checksum \(loop.counts)")
