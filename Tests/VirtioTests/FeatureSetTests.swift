import Testing
import Virtio

/// Feature bits: what is understood, what depends on what.
@Suite struct FeatureSetTests {
  @Test("Trap 7: a set holds bits beyond 64")
  func beyond64() {
    let set: FeatureSet = [.rssContext, .ipsec, .version1]
    #expect(set.bits == [32, 64, 70])
    #expect(set.high == 1 | 1 << 6)
    #expect(FeatureSet(bit: 127).bits == [127])
    #expect(FeatureSet(bit: 128).isEmpty && FeatureSet(bit: -1).isEmpty)
  }

  @Test("§2.2.1: bits without a name are masked out")
  func unlisted() {
    let all = FeatureSet(low: .max, high: .max)
    let masked = all.masked
    for bit in [4, 6, 24, 25, 27, 31, 37, 42, 44, 45, 46, 47, 48, 49, 58, 71, 127] {
      #expect(!masked.contains(FeatureSet(bit: bit)), "bit \(bit)")
    }
    #expect(masked == FeatureSet.known)
    #expect(masked.subtracting(.vhostOnly).isDisjoint(with: [FeatureSet(bit: 26), FeatureSet(bit: 30)]))
  }

  @Test("Driver rule 2: MQ falls without CTRL_VQ, unless the transport switches pairs (trap 14)")
  func multiQueue() {
    let offered: FeatureSet = [.version1, .mq, .mac]
    #expect(offered.droppingDependents() == [.version1, .mac])
    #expect(offered.droppingDependents(switching: .transport) == offered)
    let withChannel = offered.union(.ctrlVQ)
    #expect(withChannel.droppingDependents() == withChannel)
  }

  @Test("Driver rule 2: dependents fall in chains")
  func chains() {
    let guest: FeatureSet = [.guestTSO4, .guestTSO6, .guestECN, .guestUSO4, .guestUSO6, .guestUDPTunnelGSO]
    #expect(guest.droppingDependents().isEmpty)
    #expect(guest.union(.guestCsum).droppingDependents() == guest.union(.guestCsum))
    let host: FeatureSet = [.hostTSO4, .hostECN, .hostUFO, .hostUSO, .rscExt, .hostUDPTunnelGSOCsum]
    #expect(host.droppingDependents().isEmpty)
    #expect(host.union(.csum).droppingDependents() == [.csum, .hostTSO4, .hostECN, .hostUFO, .hostUSO, .rscExt])
    #expect(FeatureSet([.rssContext, .rss]).droppingDependents().isEmpty)
    #expect(FeatureSet([.hashTunnel, .ctrlVQ, .hashReport]).droppingDependents().contains(.hashTunnel))
    #expect(FeatureSet.mrgRxbuf.droppingDependents() == .mrgRxbuf)
  }

  @Test("§5.1.9.3.1: the header is 12, 20, 24 or 32 bytes")
  func headerSize() {
    #expect(FeatureSet.version1.netHeaderSize == 12)
    #expect(FeatureSet([.hashReport]).netHeaderSize == 20)
    #expect(FeatureSet([.hashReport, .hostUDPTunnelGSO]).netHeaderSize == 24)
    #expect(FeatureSet([.guestUDPTunnelGSO]).netHeaderSize == 24)
    #expect(FeatureSet([.outNetHeader, .hashReport]).netHeaderSize == 32)
  }

  @Test("§5.1.9.3: small buffers without MRG_RXBUF rule large receive out")
  func receiveBuffers() {
    #expect(FeatureSet.version1.minimumReceiveBufferSize == 1526)
    #expect(FeatureSet.hashReport.minimumReceiveBufferSize == 1534)
    let large: FeatureSet = [.guestCsum, .guestTSO4, .guestECN]
    #expect(large.minimumReceiveBufferSize == 65601)
    #expect(large.union(.hashReport).minimumReceiveBufferSize == 65609)
    #expect(large.union(.mrgRxbuf).minimumReceiveBufferSize == 12)
    #expect(large.fitting(receiveBufferSize: 2048) == .guestCsum)
    #expect(large.fitting(receiveBufferSize: 65601) == large)
    #expect(large.union(.mrgRxbuf).fitting(receiveBufferSize: 2048) == large.union(.mrgRxbuf))
  }

  @Test("A set behaves as a set")
  func algebra() {
    var set: FeatureSet = [.mac]
    #expect(set.insert(.mtu).inserted)
    #expect(!set.insert(.mtu).inserted)
    #expect(set.remove([.mtu, .mq]) == .mtu)
    #expect(set.remove(.mtu) == nil)
    #expect(set.update(with: .mac) == .mac)
    #expect(set.symmetricDifference([.mac, .ipsec]) == .ipsec)
    #expect(set.union(.ipsec).description == "[mac, ipsec]")
    #expect(FeatureSet(bit: 4).description == "[bit 4]")
  }

  @Test("§2.1: the bits of the device status")
  func status() {
    let ready: DeviceStatus = [.acknowledge, .driver, .featuresOK, .driverOK]
    #expect(ready.rawValue == 0x0f)
    #expect(DeviceStatus([.needsReset, .failed, .suspend]).rawValue == 0xd0)
  }
}
