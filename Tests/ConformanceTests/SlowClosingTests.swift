import CTestSupport
import Foundation
import Glibc
import InProcess
import LibeventConcurrency
import Netdev
import PacketSocket
import Synchronization
import TestSupport
import Testing
import VirtioDevice
import VirtioNet

/// The end of a device whose descriptors the kernel is slow to close: they are closed, and nobody waits for it on a loop.
@Suite(
  .serialized, .quietLoops, .timeLimit(.minutes(5)),
  .enabled(if: NamespaceThread.isAvailable, "needs root and /dev/net/tun"))
struct SlowClosingTests {
  private static func wire() async throws -> NamespaceThread {
    let namespace = NamespaceThread()
    try await namespace.shell(
      """
      echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && ip link add packet0 type veth peer name packet1 && \
      ip link set packet0 up && ip link set packet1 up
      """)
    return namespace
  }

  /// Packet sockets that are open in the namespace.
  private static func sockets(_ namespace: NamespaceThread) async throws -> Int {
    try await namespace.run {
      // A title, and a line for each. To its end: the first read has a page of it at most.
      let file = try FileHandle(forReadingFrom: URL(filePath: "/proc/thread-self/net/packet"))
      return try (file.readToEnd() ?? Data()).count { $0 == UInt8(ascii: "\n") } - 1
    }
  }

  private static func driver(_ namespace: NamespaceThread, queues: Int) async throws -> PacketDriver {
    var options = PacketDriver.Options()
    options.isPromiscuous = true
    return try await namespace.run { [options] in try PacketDriver("packet0", queues: queues, options: options) }
  }

  private static func isPromiscuous(_ namespace: NamespaceThread) async -> Bool {
    await (try? namespace.shell("ip -d link show packet0 | grep -q 'promiscuity [1-9]'")) != nil
  }

  @Test(arguments: [1, 64]) func `closing closes the sockets, while the device and its driver are still held`(
    _ queues: Int
  ) async throws {
    let namespace = try await Self.wire()
    let driver = try await Self.driver(namespace, queues: queues)
    let device = try await NetworkDevice.open(driver: driver)
    #expect(try await Self.sockets(namespace) == queues)
    #expect(await Self.isPromiscuous(namespace))
    try await device.close()
    #expect(try await Self.sockets(namespace) == 0)
    #expect(await !Self.isPromiscuous(namespace))
    #expect(device.deviceDrops.count == queues)
  }

  @Test func `the sockets of queues that nobody asked for are closed`() async throws {
    let namespace = try await Self.wire()
    let driver = try await Self.driver(namespace, queues: 4)
    var configuration = NetworkDevice.Configuration()
    configuration.queuePairs = 1
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    try await eventually("one is left") { try await Self.sockets(namespace) == 1 }
    try await device.close()
    #expect(try await Self.sockets(namespace) == 0)
  }

  @Test func `an opening that is cancelled leaves no socket`() async throws {
    let namespace = try await Self.wire()
    for _ in 0..<5 {
      let driver = try await Self.driver(namespace, queues: 16)
      let opening = Task { try await NetworkDevice.open(driver: driver) }
      try await Task.sleep(for: .milliseconds(.random(in: 0...30)))
      opening.cancel()
      if let device = try? await opening.value { try await device.close() }
      try await eventually("no socket is left") { try await Self.sockets(namespace) == 0 }
      withExtendedLifetime(driver) {}
    }
  }

  /// Rings of packet sockets that are mapped.
  private static func mappedRings() throws -> Int {
    let file = try FileHandle(forReadingFrom: URL(filePath: "/proc/self/maps"))
    let text = String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
    return text.split(separator: "\n").count { $0.contains("socket:[") }
  }

  @Test func `rings are unmapped where calls may block, and not by the loop that lets go of them`() async throws {
    let namespace = try await Self.wire()
    let driver = try await Self.driver(namespace, queues: 2)
    var configuration = NetworkDevice.Configuration()
    configuration.resetTimeout = .milliseconds(100)
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    let before = try Self.mappedRings()
    #expect(before >= 2)
    let held = HeldCalls()
    defer { held.letGo() }
    try await eventually("no thread is left for calls that may block") { BlockingCalls.due > 0 }
    try await device.close()
    #expect(try Self.mappedRings() == before, "nobody has unmapped them yet")
    held.letGo()
    try await eventually("they are unmapped") { try Self.mappedRings() == before - 2 }
  }

  /// Calls that may block, and do until they are let go: as many as there are threads for, and more.
  private final class HeldCalls: Sendable {
    private let areHeld = Atomic(true)

    init() {
      for _ in 0..<64 {
        BlockingCalls.start { [self] in while areHeld.load(ordering: .acquiring) { usleep(1000) } }
      }
    }

    func letGo() { areHeld.store(false, ordering: .releasing) }
  }

  private static let canHoldLock = NamespaceThread.isAvailable && test_can_hold_link_lock()

  @Test(.enabled(if: canHoldLock, "needs root and userfaultfd"))
  func `whoever holds the kernel's lock of links holds no closing of a TAP device either, and it is gone afterwards`()
    async throws
  {
    let namespace = NamespaceThread()
    let backend = try await namespace.run { try TapBackend("tap0", queues: 2) }
    let transport = InProcessTransport(device: VirtioNetDevice(backend: backend))
    var configuration = NetworkDevice.Configuration()
    configuration.resetTimeout = .milliseconds(100)
    let device = try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: transport), configuration: configuration)
    #expect(test_hold_link_lock(4000) == 0)
    try await device.close()
    #expect(test_link_lock_is_held() == 1, "close took as long as the lock was held")
    try await eventually("the interface is gone") { try await namespace.interfaceNumber("tap0") == 0 }
  }

  @Test(.enabled(if: canHoldLock, "needs root and userfaultfd"))
  func `whoever holds the kernel's lock of links holds neither close nor a loop, and the sockets close afterwards`()
    async throws
  {
    let namespace = try await Self.wire()
    let driver = try await Self.driver(namespace, queues: 2)
    var configuration = NetworkDevice.Configuration()
    configuration.resetTimeout = .milliseconds(100)
    let device = try await NetworkDevice.open(driver: driver, configuration: configuration)
    #expect(test_hold_link_lock(4000) == 0)
    try await device.close()
    #expect(test_link_lock_is_held() == 1, "close took as long as the lock was held")
    try await eventually("the sockets are closed") { try await Self.sockets(namespace) == 0 }
  }
}
