import Netdev
import NetdevTesting
import PacketFormats
import TestSupport
import Testing
import Virtio
import VirtioNet

/// How the driver agrees with a device (VIRTIO 1.4 §3.1.1, §5.1.4).
@Suite(.timeLimit(.minutes(1))) struct VirtioDriverTestsAgreement {
  /// Opens a device, says what came of it, and closes it again.
  private func open(
    _ configuration: LyingDevice.Configuration, pool: PacketPool? = nil, queuePairs: Int? = nil, queueSize: Int? = nil,
    options: VirtioNetDriver.Options = .init()
  ) async -> (side: LyingDevice, result: Result<NetworkDeviceInformation, NetworkDeviceError>) {
    let side = LyingDevice(configuration)
    var settings = NetworkDevice.Configuration()
    settings.pool = pool
    settings.queuePairs = queuePairs
    settings.queueSize = queueSize
    do throws(NetworkDeviceError) {
      let device = try await NetworkDevice.open(
        driver: VirtioNetDriver(transport: side, options: options), configuration: settings)
      let information = device.information
      try await device.close()
      return (side, .success(information))
    } catch {
      return (side, .failure(error))
    }
  }

  private func code(_ result: Result<NetworkDeviceInformation, NetworkDeviceError>) -> NetworkDeviceError.Code? {
    if case .failure(let error) = result { error.code } else { nil }
  }

  @Test
  func `Driver rules 1, 3, 8: reset, status by status, features read back, queues, DRIVER_OK, and only then a kick`()
    async throws
  {
    let lying = try await Lying()
    let features: FeatureSet = [.version1, .mac, .status, .mrgRxbuf, .indirectDesc, .eventIndex]
    let driver: DeviceStatus = [.acknowledge, .driver]
    let settled: DeviceStatus = [.acknowledge, .driver, .featuresOK]
    #expect(
      lying.side.events == [
        .connect, .reset, .setStatus(.acknowledge), .setStatus(driver), .readFeatures, .setFeatures(features),
        .setStatus(settled), .readStatus, .readConfig, .share, .share, .attach(queue: 0), .attach(queue: 1),
        .setStatus([.acknowledge, .driver, .featuresOK, .driverOK]),
      ])
    // The first buffers were posted before; the first kick of each ring is unconditional and comes after.
    let kicks = await lying.side.perform { [$0.receiveKicks, $0.transmitKicks, $0.receive.held.count] }
    #expect(kicks?[0] ?? 0 >= 1)
    #expect(kicks?[1] ?? 0 >= 1)
    #expect(kicks?[2] == 16)
    try await lying.closeAndCheck()
    #expect(Array(lying.side.events.suffix(2)) == [.reset, .shutDown])
  }

  @Test func `Driver rule 1: a device that leaves FEATURES_OK out is told FAILED and sees no queue`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.refusesFeatures = true
    let (side, result) = await open(configuration)
    #expect(code(result) == .unsupported)
    #expect(side.events.contains(.setStatus([.acknowledge, .driver, .failed])))
    #expect(!side.events.contains(.attach(queue: 0)))
    #expect(!side.events.contains(.share))
    #expect(!side.events.contains(.misplacedKick(pair: 0)))
  }

  @Test func `Driver rule 1: a legacy device is refused, and told so`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.version1)
    let (side, result) = await open(configuration)
    #expect(code(result) == .unsupported)
    #expect(side.events.contains(.setStatus([.acknowledge, .driver, .failed])))
  }

  @Test func `Driver rule 1: a device that never confirms the first reset is not driven`() async throws {
    let side = LyingDevice()
    side.resetBehaviour = .never
    var settings = NetworkDevice.Configuration()
    settings.resetTimeout = .milliseconds(20)
    await #expect {
      _ = try await NetworkDevice.open(driver: VirtioNetDriver(transport: side), configuration: settings)
    } throws: { error in (error as? NetworkDeviceError)?.code == .resetNotConfirmed }
    #expect(!side.events.contains(.setStatus(.acknowledge)))
  }

  @Test func `Driver rule 2: MQ without a control queue is one pair, unless the transport switches pairs`() async throws
  {
    var configuration = LyingDevice.Configuration()
    configuration.features.insert(.mq)
    configuration.space = LyingDevice.Space.bytes(pairs: 4)
    configuration.pairSwitching = .controlQueue
    let (side, refused) = await open(configuration, queuePairs: 2)
    #expect(code(refused) == .invalidConfiguration)
    for case .setFeatures(let features) in side.events { #expect(!features.contains(.mq)) }
    let (_, one) = await open(configuration)
    #expect(try one.get().queuePairs == 1)
    configuration.pairSwitching = .transport
    let (other, two) = await open(configuration, queuePairs: 2)
    #expect(try two.get().queuePairs == 2)
    #expect(other.events.filter { if case .attach = $0 { true } else { false } } == (0..<4).map { .attach(queue: $0) })
  }

  @Test func `what the way to the device needs is accepted, and a device without it is refused`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.requiredFeatures = .accessPlatform
    let (side, refused) = await open(configuration)
    #expect(code(refused) == .unsupported)
    #expect(side.events.contains(.setStatus([.acknowledge, .driver, .failed])))
    configuration.features.insert(.accessPlatform)
    let (other, taken) = await open(configuration)
    _ = try taken.get()
    #expect(
      other.events.contains { if case .setFeatures(let set) = $0 { set.contains(.accessPlatform) } else { false } })
    // Nobody accepts it where it is only offered.
    configuration.requiredFeatures = []
    let (last, _) = await open(configuration)
    for case .setFeatures(let set) in last.events { #expect(!set.contains(.accessPlatform)) }
  }

  @Test(arguments: [(0, 0), (1, 0), (2, 1), (5, 2), (8, 4), (100, 4)])
  func `there are no more pairs than the transport has virtqueues for`(queues: Int, pairs: Int) async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.insert(.mq)
    configuration.space = LyingDevice.Space.bytes(pairs: 4)
    configuration.maximumQueues = queues
    if pairs > 0 { #expect(try await open(configuration, queuePairs: pairs).result.get().queuePairs == pairs) }
    #expect(code(await open(configuration, queuePairs: pairs + 1).result) == .invalidConfiguration)
  }

  @Test func `Driver rule 2: what the driver does not know, and reserved bits, are never accepted`() async throws {
    var configuration = LyingDevice.Configuration()
    for bit in 0..<128 { configuration.features.formUnion(FeatureSet(bit: bit)) }
    configuration.space = LyingDevice.Space.bytes(length: 64)
    let (side, result) = await open(configuration)
    #expect(try result.get().queuePairs == 1)
    let accepted = side.events.compactMap { if case .setFeatures(let set) = $0 { set } else { nil } }
    #expect(accepted.count == 1)
    let known: FeatureSet = [
      .version1, .mac, .status, .mtu, .mq, .speedDuplex, .mrgRxbuf, .eventIndex, .indirectDesc,
    ]
    #expect(accepted[0].isSubset(of: known))
  }

  @Test func `Driver rule 5: an address that changes while it is read is never a mixture`() async throws {
    for changes in 1...15 {
      var configuration = LyingDevice.Configuration()
      configuration.changesDuringRead = changes
      let (_, result) = await open(configuration)
      let address = try #require(try result.get().hardwareAddress)
      #expect(Set((0..<6).map { address[$0] }).count == 1, "\(address)")
    }
  }

  @Test func `Driver rule 5: a configuration that never stands still is refused, not read for ever`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.changesDuringRead = .max
    let (side, result) = await open(configuration)
    #expect(code(result) == .broken)
    #expect(!side.events.contains(.attach(queue: 0)))
  }

  @Test func `Driver rule 6: six bytes of configuration are enough for a device that has only an address`() async throws
  {
    var configuration = LyingDevice.Configuration()
    configuration.features = [.version1, .mac]
    configuration.space = LyingDevice.Space.bytes(length: 6)
    let (_, result) = await open(configuration)
    #expect(try result.get().hardwareAddress == MACAddress(2, 0, 0, 0, 0, 1))
    #expect(try result.get().mtu == 1500)
  }

  @Test(arguments: [0, 5, 6, 7, 8, 10, 11, 16])
  func `Driver rule 6: a configuration too short for what is offered is refused`(length: Int) async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features = [.version1, .mac, .status, .mq, .mtu, .speedDuplex]
    configuration.space = LyingDevice.Space.bytes(length: length)
    let (side, result) = await open(configuration)
    #expect(code(result) == .broken)
    #expect(!side.events.contains(.attach(queue: 0)))
  }

  @Test func `Driver rule 6: a configuration longer than the driver knows is accepted`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.space = LyingDevice.Space.bytes(length: 4096)
    let (_, result) = await open(configuration)
    #expect(try result.get().hardwareAddress == MACAddress(2, 0, 0, 0, 0, 1))
  }

  private static let absurd: [(what: String, space: [UInt8])] = [
    ("address of zeros", LyingDevice.Space.bytes(mac: [0, 0, 0, 0, 0, 0])),
    ("group address", LyingDevice.Space.bytes(mac: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    ("status of a device that is gone", LyingDevice.Space.bytes(status: 0xffff)),
    ("no pairs", LyingDevice.Space.bytes(pairs: 0)),
    ("more pairs than can be", LyingDevice.Space.bytes(pairs: 0x8001)),
    ("an MTU of zero", LyingDevice.Space.bytes(mtu: 0)),
    ("an MTU of 67", LyingDevice.Space.bytes(mtu: 67)),
  ]

  @Test(arguments: absurd.indices) func `Driver rule 6: an absurd configuration is refused`(index: Int) async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.formUnion([.mq, .mtu])
    configuration.space = Self.absurd[index].space
    let (_, result) = await open(configuration)
    #expect(code(result) == .broken, "\(Self.absurd[index].what)")
  }

  @Test func `Driver rule 7: a queue size that no split ring has, or none at all, is refused or cut`() async throws {
    var configuration = LyingDevice.Configuration()
    for (maximum, expected) in [(1024, 256), (256, 256), (300, 256), (100, 64), (3, 2)] {
      configuration.maximumQueueSize = maximum
      let (_, result) = await open(configuration)
      #expect(try result.get().queueSize == expected)
    }
    for maximum in [0, -1] {
      configuration.maximumQueueSize = maximum
      #expect(code(await open(configuration).result) == .invalidConfiguration)
    }
    configuration.maximumQueueSize = 256
    for wanted in [0, 3, 257, 512, 65_536] {
      #expect(code(await open(configuration, queueSize: wanted).result) == .invalidConfiguration)
    }
  }

  @Test func `Driver rule 9: without MRG_RXBUF every receive buffer takes the largest frame`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.mrgRxbuf)
    configuration.features.insert(.mtu)
    configuration.space = LyingDevice.Space.bytes(mtu: 9000)
    // A pool of ordinary buffers is refused.
    let (side, refused) = await open(configuration, pool: try PacketPool(.init(slots: 512)))
    #expect(code(refused) == .invalidConfiguration)
    #expect(!side.events.contains(.attach(queue: 0)))
    // The device's own is large enough.
    let lying = LyingDevice(configuration)
    let device = try await NetworkDevice.open(driver: VirtioNetDriver(transport: lying))
    let lengths = await lying.perform { pair in
      pair.receive.held.map { pair.receive.ring.descriptor($0).length }
    }
    #expect(lengths?.isEmpty == false)
    #expect(lengths?.allSatisfy { $0 >= 9014 + 12 } == true)
    try await device.close()
  }

  @Test func `Driver rule 9: an MTU beyond any buffer is refused in words`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.remove(.mrgRxbuf)
    configuration.features.insert(.mtu)
    configuration.space = LyingDevice.Space.bytes(mtu: 65_535)
    #expect(code(await open(configuration).result) == .invalidConfiguration)
  }

  @Test func `Driver rule 9: nothing longer than the MTU is ever transmitted`() async throws {
    var configuration = LyingDevice.Configuration()
    configuration.features.insert(.mtu)
    configuration.space = LyingDevice.Space.bytes(mtu: 1000)
    let lying = try await Lying(configuration)
    let queue = lying.queue
    await #expect {
      try await queue.submit(Packet(count: 1015, in: lying.pool))
    } throws: { ($0 as? NetworkDeviceError)?.code == .frameTooLong }
    await #expect {
      try await queue.send(Packet(count: 1015, in: lying.pool))
    } throws: { ($0 as? NetworkDeviceError)?.code == .frameTooLong }
    try await queue.submit(Packet(count: 1014, in: lying.pool))
    // A device that sends longer frames itself: they are dropped, and counted.
    await lying.side.perform { pair in
      _ = pair.deliver(numbered(1, count: 1014), interrupt: .always)
      _ = pair.deliver(numbered(2, count: 1015), interrupt: .always)
      _ = pair.deliver(numbered(3, count: 1100), pieces: [900, 200], interrupt: .always)
      _ = pair.deliver(numbered(4, count: 1014), pieces: [900, 114], interrupt: .always)
    }
    var received = 0
    while received < 2 {
      guard let burst = await queue.receiveBurst() else { break }
      received += burst.count
      try await queue.submit(burst)
    }
    try await eventually("those that may be sent are published") { await lying.held() == 3 }
    let lengths = await lying.side.perform { pair in (0..<3).map { pair.transmitted(at: $0)?.frame.count } }
    #expect(lengths == [1014, 1014, 1014])
    #expect(queue.statistics.packetsFailed == 0)
    #expect(queue.statistics.driver.receiveDropsLength == 2)
    try await lying.closeAndCheck()
  }
}
