#if ServiceLifecycle
import Logging
import Netdev
import NetdevDevices
import NetdevService
import NetdevTesting
import ServiceLifecycle
import ServiceLifecycleTestKit
import Synchronization
import TestSupport
import Testing

/// A device as a service: how it starts, and the ways in which it ends.
@Suite(.timeLimit(.minutes(3))) struct NetworkDeviceServiceTests {
  /// A service on a scripted device whose bodies submit `frames` and then receive.
  private func service(
    _ driver: ScriptedDriver, queues: Int = 1, frames: Int, gracePeriod: Duration = .seconds(60)
  ) -> NetworkDeviceService {
    NetworkDeviceService(
      gracePeriod: gracePeriod,
      opening: {
        var configuration = NetworkDevice.Configuration()
        configuration.queuePairs = queues
        return try await NetworkDevice.open(driver: driver, configuration: configuration)
      },
      body: { queue in
        for _ in 0..<frames { try await queue.submit(Packet(count: 64, in: queue.pool)) }
        for await _ in queue.packets {}
      })
  }

  @Test func `a shutdown waits for every frame in flight, on every queue, and then returns`() async throws {
    let driver = ScriptedDriver(mode: .hold, queuePairs: 2)
    let service = service(driver, queues: 2, frames: 3)
    try await testGracefulShutdown { trigger in
      try await withThrowingTaskGroup(of: Void.self) { group in
        let isDone = Flag()
        group.addTask {
          try await service.run()
          isDone.set()
        }
        for queue in 0..<2 {
          try await eventually("the frames are with the device") { await driver.held(queue: queue) == 3 }
        }
        trigger.triggerGracefulShutdown()
        await driver.releaseAll(queue: 0)
        await driver.release(queue: 1, at: 0)
        // Several times as long as the service waits between two looks.
        try await Task.sleep(for: .milliseconds(100))
        #expect(!isDone.isSet && driver.resetCount == 0, "two frames are still with the device")
        await driver.releaseAll(queue: 1)
        try await group.waitForAll()
        #expect(isDone.isSet && driver.resetCount == 1 && driver.shutDownCount == 1)
      }
    }
  }

  @Test func `the grace period ends the wait for a device that gives nothing back`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let service = service(driver, frames: 1, gracePeriod: .milliseconds(20))
    try await testGracefulShutdown { trigger in
      async let run: Void = service.run()
      try await eventually("the frame is with the device") { await driver.held() == 1 }
      trigger.triggerGracefulShutdown()
      try await run
    }
    #expect(driver.shutDownCount == 1)
  }

  @Test func `a body that sends on is cut off without making the shutdown a failure`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let service = NetworkDeviceService(
      opening: { try await NetworkDevice.open(driver: driver) },
      body: { queue in while true { try await queue.send(Packet(count: 64, in: queue.pool)) } })
    try await testGracefulShutdown { trigger in
      async let run: Void = service.run()
      try await Task.sleep(for: .milliseconds(20))
      trigger.triggerGracefulShutdown()
      try await run
    }
    #expect(driver.shutDownCount == 1)
  }

  @Test func `a body sees the shutdown and may end by itself`() async throws {
    let driver = ScriptedDriver(mode: .release)
    let saw = Flag()
    let service = NetworkDeviceService(
      opening: { try await NetworkDevice.open(driver: driver) },
      body: { _ in
        try await gracefulShutdown()
        saw.set()
      })
    try await testGracefulShutdown { trigger in
      async let run: Void = service.run()
      trigger.triggerGracefulShutdown()
      try await run
    }
    #expect(saw.isSet && driver.shutDownCount == 1)
  }

  @Test func `without a shutdown the service ends as its bodies do, and the device is closed`() async throws {
    let driver = ScriptedDriver(mode: .release)
    try await NetworkDeviceService(opening: { try await NetworkDevice.open(driver: driver) }, body: { _ in }).run()
    #expect(driver.shutDownCount == 1)

    struct Failure: Error {}
    let failing = NetworkDeviceService(
      opening: { try await NetworkDevice.open(driver: driver) }, body: { _ in throw Failure() })
    await #expect(throws: Failure.self) { try await failing.run() }
    #expect(driver.shutDownCount == 2)
  }

  @Test func `a device closed by somebody else is not taken for a shutdown`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let device = try await NetworkDevice.open(driver: driver)
    let service = NetworkDeviceService(
      opening: { device }, body: { queue in try await queue.send(Packet(count: 64, in: queue.pool)) })
    let task = Task { try await service.run() }
    try await eventually("the frame is with the device") { await driver.held() == 1 }
    try await device.close()
    await #expect {
      try await task.value
    } throws: {
      ($0 as? NetworkDeviceError)?.code == .closed
    }
  }

  @Test func `a reset that is not confirmed is the shutdown's failure`() async throws {
    let driver = ScriptedDriver(mode: .release, reset: .never)
    let service = service(driver, frames: 0)
    await #expect {
      try await testGracefulShutdown { trigger in
        async let run: Void = service.run()
        trigger.triggerGracefulShutdown()
        try await run
      }
    } throws: {
      ($0 as? NetworkDeviceError)?.code == .resetNotConfirmed
    }
  }

  @Test func `a queue that breaks is thrown, whether or not there is a shutdown`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let service = service(driver, frames: 1)
    await #expect {
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await service.run() }
        try await eventually("the frame is with the device") { await driver.held() == 1 }
        await driver.breakQueue(NetworkDeviceError(.broken, "test", offered: "nonsense"))
        try await group.waitForAll()
      }
    } throws: { ($0 as? NetworkDeviceError)?.code == .broken }
  }

  @Test func `cancellation closes at once, frames in flight or not`() async throws {
    let driver = ScriptedDriver(mode: .hold)
    let service = service(driver, frames: 1)
    let task = Task { try await service.run() }
    try await eventually("the frame is with the device") { await driver.held() == 1 }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(driver.shutDownCount == 1)
  }

  @Test func `a device that cannot be opened is thrown`() async throws {
    let service = NetworkDeviceService("nonsense:") { _ in }
    await #expect(throws: NetworkDeviceError.self) { try await service.run() }
  }

  @Test func `a service group starts a device by URL and shuts it down`() async throws {
    let received = Counter()
    let service = NetworkDeviceService("loopback:") { queue in
      for _ in 0..<10 { try await queue.submit(Packet(count: 64, in: queue.pool)) }
      for await _ in queue.packets { received.increment() }
    }
    let group = ServiceGroup(services: [service], logger: Logger(label: "test"))
    async let run: Void = group.run()
    try await eventually("ten frames are back") { received.value == 10 }
    await group.triggerGracefulShutdown()
    try await run
  }
}

/// How often something has happened.
private final class Counter: Sendable {
  private let count = Atomic<Int>(0)
  var value: Int { count.load(ordering: .acquiring) }
  func increment() { count.add(1, ordering: .acquiringAndReleasing) }
}

/// Something that has happened.
private final class Flag: Sendable {
  private let value = Atomic<Bool>(false)
  var isSet: Bool { value.load(ordering: .acquiring) }
  func set() { value.store(true, ordering: .releasing) }
}
#endif
