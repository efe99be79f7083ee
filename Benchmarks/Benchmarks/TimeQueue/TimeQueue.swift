// Times by ordo-one/benchmark: the queue of a loopback device, and the ring core beside its twin in C.
//
//     swift package --traits Timing benchmark --target TimeQueue --scale
//
// An iteration is a million frames of 64 bytes; `--scale` shows one of them. The tool is only fetched with the trait
// `Timing`; without it this is a program that says so. What a build plugin of the tool would generate, the entry point, is
// written out here, because a plugin cannot be made to depend on a trait.
#if Timing
import Benchmark

@main struct Main: BenchmarkRunnerHooks {
  static func registerBenchmarks() {
    Benchmark.defaultConfiguration = Benchmark.Configuration(
      metrics: [.wallClock, .throughput], warmupIterations: 2, scalingFactor: .mega, maxDuration: .seconds(4),
      maxIterations: 200)
    registerRingBenchmarks()
    registerQueueBenchmarks()
  }
}
#else
@main struct Main {
  static func main() { print("TimeQueue: build it with --traits Timing") }
}
#endif
