import FuzzSupport
import PacketFormats
import Virtio
import VirtioDevice

/// A back-end that does every offload and copies each frame into private memory and back: what a back-end has to do that
/// looks at frames.
final class CopyingBackend: NetworkBackend {
  let description = "copying"
  let features: FeatureSet = [
    .csum, .guestCsum, .hostTSO4, .hostTSO6, .hostECN, .hostUFO, .hostUSO, .guestTSO4, .guestTSO6,
  ]
  let maximumPairs = 1
  let macAddress: MACAddress? = nil
  let mtu: UInt16? = nil

  func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort { CopyingPort() }
  func close() {}
}

private final class CopyingPort: BackendPort {
  /// A frame that does not fit in here is not copied.
  private let room = FencedMemory(3000, alignment: 1)

  func start(_ bell: ServiceBell) throws(BackendError) {}
  func setEnabled(_ enabled: Bool) {}
  func close() {}

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    rings.beginTransmit()
    rings.beginReceive()
    var budget = budget
    while let chain = rings.nextFrame(&budget) {
      let length = rings.copyFrame(of: chain, into: UnsafeMutableRawBufferPointer(start: room.start, count: room.count))
      promise(length > 0, "a frame has a byte")
      guard length <= room.count else {
        rings.drop(chain, .tooLong)
        continue
      }
      rings.release(chain, frameLength: length)
      if let reason = rings.deliver(UnsafeRawBufferPointer(start: room.start, count: length)) {
        rings.countDrop(.received, reason)
      }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }
}
