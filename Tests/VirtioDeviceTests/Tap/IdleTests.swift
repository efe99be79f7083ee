import CTestSupport
import LibeventConcurrency
import NetdevTesting
import TestSupport
import Testing
import Virtio

@testable import VirtioDevice

/// An engine on a loop with a thread of its own.
@safe private actor ThreadedEngine {
  private let loop: LoopExecutor
  // Proof: touched by this actor and the engine on its loop; freed when neither is left.
  nonisolated(unsafe) private let block = UnsafeMutableRawPointer.allocate(byteCount: 4 << 20, alignment: 4096)
  private var engine: QueuePairEngine?
  private let lines = (receive: TestLine(), transmit: TestLine())
  nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

  init(_ loop: LoopExecutor) { self.loop = loop }

  deinit { unsafe block.deallocate() }

  /// Starts with eight receive buffers on the ring.
  func start(_ backend: any NetworkBackend) throws {
    let device = VirtioNetDevice(backend: backend)
    device.setStatus([.acknowledge, .driver])
    device.setDriverFeatures(device.offeredFeatures.subtracting([.ringPacked, .inOrder]))
    device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    let receive = unsafe try LyingDriverRing(size: 64, block: block)
    _ = unsafe try LyingDriverRing(size: 64, block: block + (1 << 20))
    for index in 0..<8 {
      receive.write(
        LyingDriverRing.Descriptor(
          address: UInt64(2 << 20 + index * 2048), length: 1526, flags: LyingDriverRing.Descriptor.isWritable),
        at: index)
      receive.offer(UInt16(index))
    }
    receive.publish()
    engine = try device.makeEngine(
      pair: 0, loop: loop, receive: unsafe RingAreas(.split, size: 64, block: block),
      transmit: unsafe RingAreas(.split, size: 64, block: block + (1 << 20)),
      memory: GuestMemory([unsafe GuestRegion(address: 0, length: 4 << 20, host: block)]), receiveLine: lines.receive,
      transmitLine: lines.transmit)
    try engine?.start()
  }

  /// Context switches of the loop's thread so far, and frames received.
  func activity() -> (switches: Int, frames: UInt64) {
    (test_context_switches(), engine?.statistics.receivedFrames ?? 0)
  }

  func stop() {
    engine?.stop()
    engine = nil
  }
}

extension TapBackendTests {
  @Suite struct Idle {
    @Test func `an idle device makes its loop's thread switch not once`() async throws {
      let backend = try NetworkNamespace.run { try TapBackend("tap0") }
      let engine = ThreadedEngine(try LoopExecutor(name: "device"))
      try await engine.start(backend)
      // The kernel sends its neighbour discovery in the first seconds; then there is a window without a frame.
      for _ in 0..<40 {
        let before = await engine.activity()
        try await Task.sleep(for: .milliseconds(250))
        let after = await engine.activity()
        guard before.frames == after.frames else { continue }
        // The second question itself wakes the loop once; the scheduler may take the CPU from it once more.
        #expect(after.switches - before.switches <= 3)
        await engine.stop()
        return
      }
      Issue.record("the kernel was never silent")
    }
  }
}
