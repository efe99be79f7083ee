#if Timing
import Benchmark
import RingLoop
import Virtio

/// Both sides of a transmit ring and a receive ring, bursts of 32: the device carries each frame from the one to the other.
func registerRingBenchmarks() {
  for format in RingFormat.allCases {
    for inOrder in [false, true] {
      let setting = RingLoopSetting(format, inOrder: inOrder, transmits: false)
      let name = "ring loop, \(format)\(inOrder ? ", in order" : "")"
      Benchmark("\(name), Swift") { benchmark in
        try run(try makeRingLoop(setting, RingLoopMemory()), benchmark)
      }
      Benchmark("\(name), C twin") { benchmark in try run(TwinLoop(setting, RingLoopMemory()), benchmark) }
    }
  }
}

private func run(_ loop: any RingLoop, _ benchmark: Benchmark) throws {
  benchmark.startMeasurement()
  try loop.run(burst: 32, packets: UInt64(benchmark.scaledIterations.count))
  benchmark.stopMeasurement()
  blackHole(loop.counts.sum)
}
#endif
