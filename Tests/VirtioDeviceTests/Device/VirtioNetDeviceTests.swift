import LibeventConcurrency
import NetdevTesting
import PacketFormats
import Synchronization
import Testing
import Virtio

@testable import VirtioDevice

/// A back-end that claims things and carries nothing.
private final class ClaimingBackend: NetworkBackend {
  let description = "claims"
  let features: FeatureSet
  let maximumPairs: Int
  let macAddress: MACAddress?
  let mtu: UInt16?

  init(features: FeatureSet = [], pairs: Int = 1, macAddress: MACAddress? = nil, mtu: UInt16? = nil) {
    self.features = features
    maximumPairs = pairs
    self.macAddress = macAddress
    self.mtu = mtu
  }

  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
    throw BackendError(.unavailable, "serving", advice: "there is nothing here")
  }
  func close() {}
}

@Suite struct VirtioNetDeviceTests {
  private func negotiate(_ device: VirtioNetDevice, _ features: FeatureSet) -> Bool {
    device.setStatus([])
    device.setStatus(.acknowledge)
    device.setStatus([.acknowledge, .driver])
    device.setDriverFeatures(features)
    device.setStatus([.acknowledge, .driver, .featuresOK])
    return device.status.contains(.featuresOK)
  }

  @Test func `what is offered follows from the back-end and the configuration`() {
    let plain = VirtioNetDevice(backend: LoopbackBackend())
    #expect(
      plain.offeredFeatures
        == [.version1, .mac, .status, .mrgRxbuf, .indirectDesc, .eventIndex, .ringPacked, .inOrder])
    let rich = VirtioNetDevice(
      backend: ClaimingBackend(features: [.csum, .hostTSO4, .hashReport, .ctrlVQ], pairs: 4, mtu: 9000))
    #expect(
      rich.offeredFeatures
        == [
          .version1, .mac, .status, .mrgRxbuf, .indirectDesc, .eventIndex, .ringPacked, .inOrder, .mq, .mtu, .csum,
          .hostTSO4,
        ])
    var configuration = VirtioNetDevice.Configuration()
    configuration.ringFeatures = [.inOrder, .rss]
    configuration.queuePairs = 2
    configuration.pairSwitching = .controlQueue
    // With a control virtqueue, what its commands are about.
    #expect(
      VirtioNetDevice(backend: ClaimingBackend(features: .hostTSO4, pairs: 4), configuration: configuration)
        .offeredFeatures
        == [
          .version1, .mac, .status, .inOrder, .mq, .ctrlVQ, .ctrlRX, .ctrlRXExtra, .ctrlVLAN, .ctrlMACAddress,
          .guestAnnounce,
        ])
  }

  @Test
  func `FEATURES_OK does not stick for features not offered, without VERSION_1, or without what they need, §2.2.2`() {
    let device = VirtioNetDevice(backend: ClaimingBackend(features: [.csum, .hostTSO4], pairs: 2))
    #expect(negotiate(device, device.offeredFeatures))
    #expect(device.negotiatedFeatures == device.offeredFeatures)
    #expect(negotiate(device, [.version1]))
    #expect(!negotiate(device, [.version1, .guestCsum]))
    #expect(!negotiate(device, [.version1, FeatureSet(bit: 127)]))
    #expect(!negotiate(device, [.mac, .mrgRxbuf]))
    #expect(!negotiate(device, []))
    #expect(!negotiate(device, [.version1, .hostTSO4]))
    #expect(device.negotiatedFeatures == nil)
    #expect(negotiate(device, [.version1, .mq]))
  }

  /// Invariant 10, as a driver sees it: what was agreed does not change while the device works.
  @Test func `features are fixed from FEATURES_OK on, until a reset, §3.1.1`() {
    let device = VirtioNetDevice(backend: LoopbackBackend())
    #expect(negotiate(device, [.version1, .mac]))
    #expect(!device.setDriverFeatures([.version1, .mrgRxbuf]))
    #expect(device.negotiatedFeatures == [.version1, .mac])
    device.setStatus([])
    #expect(device.negotiatedFeatures == nil)
    #expect(device.setDriverFeatures([.version1, .mrgRxbuf]))
  }

  @Test func `status bits are only added, zero resets, and DRIVER_OK needs FEATURES_OK, §2.1`() {
    let device = VirtioNetDevice(backend: LoopbackBackend())
    device.setStatus([.acknowledge, .driver, .driverOK])
    #expect(device.status == [.acknowledge, .driver])
    device.setStatus(.acknowledge)
    #expect(device.status == [.acknowledge, .driver])
    // NEEDS_RESET is the device's to set.
    device.setStatus([.acknowledge, .driver, .needsReset])
    #expect(device.status == [.acknowledge, .driver])
    device.setDriverFeatures(.version1)
    device.setStatus([.acknowledge, .driver, .featuresOK])
    device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    #expect(device.status == [.acknowledge, .driver, .featuresOK, .driverOK])
    device.setStatus([])
    #expect(device.status == [])
  }

  @Test func `a device that needs a reset says so once, and notifies a running driver only, §2.1.2`() {
    let notified = Atomic<Int>(0)
    let device = VirtioNetDevice(backend: LoopbackBackend())
    device.setConfigurationLine { notified.add(1, ordering: .relaxed) }
    _ = negotiate(device, .version1)
    device.requireReset()
    #expect(device.status.contains(.needsReset))
    #expect(notified.load(ordering: .relaxed) == 0)
    device.reset()
    _ = negotiate(device, .version1)
    device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    device.requireReset()
    device.requireReset()
    #expect(notified.load(ordering: .relaxed) == 1)
    #expect(device.status.contains(.needsReset))
  }

  @Test func `the configuration space reads back what the device is, and its generation changes with the link`() throws
  {
    let mac = MACAddress(0x52, 0x54, 0, 0x12, 0x34, 0x56)
    let notified = Atomic<Int>(0)
    let device = VirtioNetDevice(backend: ClaimingBackend(pairs: 4, macAddress: mac, mtu: 9000))
    let config = try NetConfig(reading: device, features: device.offeredFeatures)
    #expect(config.macAddress == mac)
    #expect(config.mtu == 9000)
    #expect(config.maximumPairs == 4)
    #expect(config.status == .linkUp)
    device.setConfigurationLine { notified.add(1, ordering: .relaxed) }
    _ = negotiate(device, device.offeredFeatures)
    device.setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    let generation = device.generation
    device.isLinkUp = false
    device.isLinkUp = false
    #expect(device.generation != generation)
    #expect(notified.load(ordering: .relaxed) == 1)
    #expect(try NetConfig(reading: device, features: device.offeredFeatures).status == [])
    #expect(device.read8(at: -1) == 0 && device.read8(at: 24) == 0 && device.read32(at: 22) == 0)
  }

  @Test func `a device without an address of its own has a locally administered one`() {
    for _ in 0..<100 {
      let mac = VirtioNetDevice(backend: LoopbackBackend()).macAddress
      #expect(mac[0] & 3 == 2)
    }
  }

  @Test func `queue pairs are one after a reset, and more only with MQ and in range, §5.1.9.5.6`() {
    let device = VirtioNetDevice(backend: LoopbackBackend(pairs: 4))
    #expect(device.activePairs == 1)
    #expect(!device.setActivePairs(2))
    #expect(negotiate(device, [.version1, .mq]))
    #expect(device.setActivePairs(4))
    #expect(device.activePairs == 4)
    #expect(!device.setActivePairs(0))
    #expect(!device.setActivePairs(5))
    #expect(device.activePairs == 4)
    device.reset()
    #expect(device.activePairs == 1)
    #expect(negotiate(device, [.version1]))
    #expect(!device.setActivePairs(2))
  }

  @Test func `an engine is refused before FEATURES_OK, for no such pair, for too large a ring, and for a bad one`()
    throws
  {
    let hand = try HandTurnedLoop.withEvents()
    let block = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { unsafe block.deallocate() }
    func refusal(
      _ device: VirtioNetDevice, pair: Int = 0, size: Int = 64, shift: Int = 0
    ) throws -> DeviceError? {
      do throws(DeviceError) {
        let receive = unsafe RingAreas(
          size: size, descriptors: block + shift, driver: block + (256 << 10), device: block + (384 << 10))
        _ = try device.makeEngine(
          pair: pair, loop: hand.loop, receive: receive,
          transmit: unsafe RingAreas(
            size: size, descriptors: block + (512 << 10), driver: block + (768 << 10), device: block + (896 << 10)),
          memory: noMemory(), receiveLine: TestLine(), transmitLine: TestLine())
        return nil
      } catch {
        return error
      }
    }
    let device = VirtioNetDevice(backend: LoopbackBackend(pairs: 2))
    #expect(try refusal(device) == .notReady([]))
    _ = negotiate(device, .version1)
    #expect(try refusal(device) == nil)
    #expect(try refusal(device, pair: 1) == .noSuchPair(1, maximum: 1))
    #expect(try refusal(device, pair: -1) == .noSuchPair(-1, maximum: 1))
    #expect(try refusal(device, size: 2048) == .queueTooLarge(2048, maximum: 1024))
    #expect(try refusal(device, size: 48) == .ring(RingError(.size, 48)))
    #expect(try refusal(device, shift: 8) != nil)
    _ = negotiate(device, [.version1, .mq])
    #expect(try refusal(device, pair: 1) == nil)
    device.requireReset()
    #expect(try refusal(device) != nil)
    let useless = VirtioNetDevice(backend: ClaimingBackend())
    _ = negotiate(useless, .version1)
    #expect(try refusal(useless) == .backend(BackendError(.unavailable, "serving", advice: "there is nothing here")))
  }
}

/// No memory at all, which is a memory.
private func noMemory() -> GuestMemory {
  do throws(GuestMemoryError) { return try GuestMemory([]) } catch { preconditionFailure("\(error)") }
}

@Suite struct FrameFormatTests {
  private func objection(_ header: VirtioNetHeader, _ features: FeatureSet, _ length: Int = 100) -> DropReason? {
    FrameFormat(features).objection(to: header, frameLength: length)
  }

  @Test func `Device rule 8: a checksum request must have been negotiated and lead into the frame, §5.1.9.2.2`() {
    let header = VirtioNetHeader(flags: .needsChecksum, checksumStart: 34, checksumOffset: 64)
    #expect(objection(header, [.version1]) == .offloadNotNegotiated)
    #expect(objection(header, [.version1, .csum]) == nil)
    #expect(objection(header, [.version1, .csum], 99) == .invalidOffload)
    #expect(
      objection(
        VirtioNetHeader(flags: .needsChecksum, checksumStart: 65535, checksumOffset: 65535), [.version1, .csum])
        == .invalidOffload)
  }

  @Test func `Device rule 8: a segmentation request must have been negotiated, with a size and a checksum, §5.1.9.2.1`()
  {
    let features: FeatureSet = [.version1, .csum, .hostTSO4]
    let good = VirtioNetHeader(
      flags: .needsChecksum, segmentation: .tcp4, segmentSize: 1448, checksumStart: 34, checksumOffset: 16)
    #expect(objection(good, features) == nil)
    #expect(objection(good, [.version1, .csum]) == .offloadNotNegotiated)
    var bad = good
    bad.segmentSize = 0
    #expect(objection(bad, features) == .invalidOffload)
    bad = good
    bad.flags = []
    #expect(objection(bad, features) == .invalidOffload)
    bad = good
    bad.segmentation = .tcp6
    #expect(objection(bad, features) == .offloadNotNegotiated)
    bad.segmentation = VirtioNetHeader.Segmentation(rawValue: 0x81)
    #expect(objection(bad, features) == .offloadNotNegotiated)
  }

  @Test func `every reason to drop a frame has a counter of its own, each way`() {
    var drops = DropCounts()
    for (index, reason) in DropReason.allCases.enumerated() {
      drops[.transmitted, reason] = UInt64(1) << UInt64(index)
      drops[.received, reason] = UInt64(1) << UInt64(index + 20)
    }
    let all = UInt64(1) << UInt64(DropReason.allCases.count) - 1
    for (index, reason) in DropReason.allCases.enumerated() {
      #expect(drops[.transmitted, reason] == UInt64(1) << UInt64(index))
      #expect(drops[reason] == UInt64(1) << UInt64(index) + UInt64(1) << UInt64(index + 20))
    }
    #expect(drops.total(.transmitted) == all)
    #expect(drops.total == all + all << 20)
  }

  @Test func `a ledger adds up what turns dropped, and tells of each reason once`() {
    let ledger = PairLedger()
    var turn = DropCounts()
    turn[.received, .tooLong] = 2
    #expect(ledger.add(turn).map { $0.1 } == [.tooLong])
    turn[.transmitted, .tooLong] = 1
    let firsts = ledger.add(turn)
    #expect(firsts.count == 1 && firsts.first?.0 == .transmitted)
    #expect(ledger.drops[.received, .tooLong] == 4)
    #expect(ledger.drops.total == 5)
    #expect(ledger.statistics.drops.total == 5)
  }

  @Test func `a ledger goes on where the engine before left off`() {
    let ledger = PairLedger()
    for engine in 1...3 {
      ledger.beginEngine()
      var done = QueuePairStatistics()
      for turn in 1...2 {
        done.transmittedFrames = UInt64(turn)
        done.receivedBytes = UInt64(turn) * 100
        ledger.write(done)
        let all = ledger.statistics
        #expect(all.transmittedFrames == UInt64(2 * (engine - 1) + turn))
        #expect(all.receivedBytes == 100 * all.transmittedFrames)
      }
    }
  }
}
