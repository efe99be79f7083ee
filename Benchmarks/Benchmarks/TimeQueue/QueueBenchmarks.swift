#if Timing
import Benchmark
import NetdevDevices

private let inFlight = 64

/// Frames going round a loopback device whose engine runs on the queue's own loop: each is received and transmitted again.
func registerQueueBenchmarks() {
  Benchmark("loopback, receiveBurst + submit") { benchmark in
    try await measure(benchmark) { queue, count in
      var done = 0
      while done < count, let burst = await queue.receiveBurst() {
        done += burst.count
        try await queue.submit(burst)
      }
    }
  }
  Benchmark("loopback, for await + submit") { benchmark in
    try await measure(benchmark) { queue, count in
      var done = 0
      for await packet in queue.packets {
        try await queue.submit(packet)
        done += 1
        if done == count { break }
      }
    }
  }
  Benchmark("loopback, for await + send") { benchmark in
    try await measure(benchmark) { queue, count in
      var done = 0
      for await packet in queue.packets {
        try await queue.send(packet)
        done += 1
        if done == count { break }
      }
    }
  }
}

/// Opens a device, puts the frames on their way and times `body` alone, on the queue's loop.
private func measure(
  _ benchmark: Benchmark, _ body: @escaping @Sendable (isolated NetworkQueue, Int) async throws -> Void
) async throws {
  let device = try await NetworkDevice.open("loopback:?lossless=1")
  // The benchmark waits here while the queue's loop has it.
  nonisolated(unsafe) let benchmark = benchmark
  try await device.run { queue in
    for _ in 0..<inFlight { try await queue.submit(Packet(count: 64, in: queue.pool)) }
    benchmark.startMeasurement()
    try await body(queue, benchmark.scaledIterations.count)
    benchmark.stopMeasurement()
  }
}
#endif
