internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import VhostUser
internal import Virtio
internal import VirtioNet

/// One connection of a peer's: what the driver says, and the rings that come of it. On the peer's loop.
final class PeerConnection {
  /// A ring as the messages have set it up.
  private final class Ring {
    var size = 0
    /// Where both sides begin, as the driver says.
    var base: UInt32 = 0
    var addresses: VringAddresses?
    var kick: CInt = -1
    var call: CInt = -1
    var error: CInt = -1
    var isEnabled = false
    var source: LoopSource?
  }

  private let peer: VhostUserPeer
  private let onEnd: () -> Void
  private var socket: MessageSocket?
  private var channel: CInt = -1
  private var features = FeatureSet()
  private var protocolFeatures = ProtocolFeatures()
  private var status: UInt8 = 0
  private var hasBeenDriven = false
  private var regions: [AddressPlan.Piece] = []
  private var rings: [UInt32: Ring] = [:]
  /// Those that are driven.
  private(set) var pairs: [Int: LyingPair] = [:]

  /// Takes over the descriptor.
  ///
  /// - Parameter onEnd: called when the driver has hung up, or has broken a rule.
  init(_ peer: VhostUserPeer, _ descriptor: CInt, onEnd: @escaping () -> Void) {
    self.peer = peer
    self.onEnd = onEnd
    socket = try? MessageSocket(
      descriptor: descriptor, loop: peer.loop, onMessage: { [weak self] in self?.receive($0) },
      onEnd: { [weak self] _ in
        self?.close()
        self?.onEnd()
      })
  }

  /// Lets go of everything: from here on nothing of the driver's memory is touched.
  func close() {
    socket?.close()
    socket = nil
    stop()
    for ring in rings.keys { forget(ring) }
    rings = [:]
    regions = []
    if channel >= 0 { netdev_close(channel) }
    channel = -1
  }

  /// Nobody drives the pairs.
  private func stop() {
    for pair in pairs.values { pair.leave() }
    pairs = [:]
  }

  private func forget(_ index: UInt32) {
    guard let ring = rings.removeValue(forKey: index) else { return }
    ring.source?.cancel()
    for descriptor in [ring.kick, ring.call, ring.error] where descriptor >= 0 { netdev_close(descriptor) }
  }

  private func ring(_ index: UInt32) -> Ring {
    if let ring = rings[index] { return ring }
    let ring = Ring()
    rings[index] = ring
    return ring
  }
}

// MARK: - What the driver says

extension PeerConnection {
  private func receive(_ incoming: MessageSocket.Incoming) {
    let message: FrontendMessage
    do throws(ProtocolError) {
      message = try FrontendMessage(
        code: FrontendCode(rawValue: incoming.header.request), payload: incoming.payload,
        descriptors: incoming.descriptors)
    } catch {
      for descriptor in incoming.descriptors { netdev_close(descriptor) }
      peer.world.find("the driver breaks the protocol: \(error)")
      return socket?.close() ?? ()
    }
    take(message)
    guard let answer = answer(to: message, needsReply: incoming.header.needsReply) else { return }
    let header = MessageHeader(request: incoming.header.request, payloadSize: answer.count, isReply: true)
    socket?.send(header.encoded + answer)
  }

  private func take(_ message: FrontendMessage) {
    switch message {
    case .setFeatures(let bits): features = FeatureSet(low: bits)
    case .setProtocolFeatures(let bits): protocolFeatures = bits
    case .setStatus(let value):
      status = value
      // Not the indices: VRING_BASE is asked for after it by some (the document leaves that open).
      if value == 0 { stop() }
    case .setMemTable(let shown):
      stop()
      regions = []
      for region in shown { map(region) }
    case .addMemReg(let region): map(region)
    case .setVringNum(let index, let size): ring(index).size = Int(size)
    case .setVringBase(let index, let base): ring(index).base = base
    case .setVringAddr(let addresses): ring(addresses.ring).addresses = addresses
    case .setVringKick(let vring): setKick(vring)
    case .setVringCall(let vring): replace(\.call, of: vring)
    case .setVringErr(let vring): replace(\.error, of: vring)
    case .setVringEnable(let index, let isEnabled): ring(index).isEnabled = isEnabled
    case .setBackendReqFD(let descriptor):
      if channel >= 0 { netdev_close(channel) }
      channel = descriptor
    default: break
    }
    drive()
  }

  private func replace(_ place: ReferenceWritableKeyPath<Ring, CInt>, of vring: VringDescriptor) {
    let ring = ring(vring.ring)
    if ring[keyPath: place] >= 0 { netdev_close(ring[keyPath: place]) }
    ring[keyPath: place] = vring.descriptor ?? -1
  }

  private func setKick(_ vring: VringDescriptor) {
    let ring = ring(vring.ring)
    ring.source?.cancel()
    replace(\.kick, of: vring)
    guard ring.kick >= 0 else { return }
    let (descriptor, index) = (ring.kick, vring.ring)
    ring.source = try? peer.loop.makeSource(descriptor: descriptor, readiness: .readable) { [weak self] in
      _ = netdev_eventfd_drain(descriptor)
      self?.hear(index)
    }
    ring.source?.resume()
  }

  private func hear(_ index: UInt32) {
    guard hasBeenDriven else { return peer.world.find("a doorbell before DRIVER_OK (VIRTIO 1.4 §3.1.1)") }
    // One that was rung before the pair was stopped.
    guard let pair = pairs[Int(index / 2)] else { return }
    if index % 2 == 0 { pair.kickReceive() } else { pair.kickTransmit() }
  }

  private func answer(to message: FrontendMessage, needsReply: Bool) -> [UInt8]? {
    let offer = peer.configuration
    var writer = PayloadWriter()
    switch message {
    case .getFeatures: writer.append(offer.features.low | 1 << 30)
    case .getProtocolFeatures: writer.append(offer.protocolFeatures)
    case .getQueueNum: writer.append(UInt64(offer.queuePairs))
    case .getMaxMemSlots: writer.append(UInt64(32))
    case .getStatus: writer.append(UInt64(status))
    case .getVringBase(let index):
      // Stopped: nothing of the pair is touched any more.
      pairs.removeValue(forKey: Int(index / 2))?.leave()
      forget(index)
      writer.append(index)
      writer.append(UInt32(0))
    case .getConfig(let size):
      writer.append(UInt32(0))
      writer.append(UInt32(size))
      writer.append(UInt32(0))
      for place in 0..<size { writer.append(config(place)) }
    default:
      guard needsReply else { return nil }
      writer.append(UInt64(0))
    }
    return writer.bytes
  }

  /// The configuration space (VIRTIO 1.4 §5.1.4): an address, the link, the pairs, the MTU.
  private func config(_ place: Int) -> UInt8 {
    switch place {
    case 0: 2
    case 5: 7
    case 6: peer.isLinkUp ? 1 : 0
    case 8: UInt8(truncatingIfNeeded: peer.configuration.queuePairs)
    case 10: UInt8(truncatingIfNeeded: 1500)
    case 11: UInt8(1500 >> 8)
    default: 0
    }
  }
}

// MARK: - Memory and rings

extension PeerConnection {
  private func map(_ region: MemoryRegion) {
    defer { netdev_close(region.descriptor) }
    let length = Int(clamping: region.size &+ region.fileOffset)
    guard let mapped = unsafe netdev_map_shared(region.descriptor, length) else {
      return peer.world.find("the peer cannot map \(length) bytes of the driver's")
    }
    let mapping = unsafe Mapping(mapped, length)
    let start = unsafe mapped + Int(region.fileOffset)
    regions.append(
      AddressPlan.Piece(
        address: region.address,
        memory: unsafe VirtioMemory(pointer: start, length: Int(clamping: region.size), owner: mapping)))
  }

  /// Unmapped with the last that uses it.
  @safe private final class Mapping: Sendable {
    // Proof: an address, which this owns.
    private nonisolated(unsafe) let pointer: UnsafeMutableRawPointer
    private let length: Int

    init(_ pointer: UnsafeMutableRawPointer, _ length: Int) {
      unsafe self.pointer = pointer
      self.length = length
    }

    deinit { unsafe netdev_unmap(pointer, length) }
  }

  /// Begins with the pairs whose rings are there.
  private func drive() {
    guard status & 4 != 0 || !protocolFeatures.contains(.status) else { return }
    hasBeenDriven = true
    for index in 0..<peer.configuration.queuePairs where pairs[index] == nil { drive(index) }
  }

  private func drive(_ index: Int) {
    let number = UInt32(2 * index)
    guard let receive = made(number), let transmit = made(number + 1) else { return }
    let pair = LyingPair(
      index: index, features: features, receive: receive, transmit: transmit, loop: peer.loop,
      onInterrupt: ({ [weak self] in self?.call(number) }, { [weak self] in self?.call(number + 1) }),
      onFailure: { _ in }, onKick: {})
    pairs[index] = pair
    peer.world.note("the peer drives pair \(index)")
    peer.whenDriven?(pair)
  }

  private func call(_ index: UInt32) {
    guard let call = rings[index]?.call, call >= 0 else { return }
    _ = netdev_eventfd_signal(call)
  }

  private func made(_ index: UInt32) -> LyingRing? {
    guard let ring = rings[index], ring.isEnabled, ring.kick >= 0, ring.size > 0, let addresses = ring.addresses else {
      return nil
    }
    // A ring that is laid anew begins at the first index of its format, a packed one in both halves.
    let format = RingFormat(features)
    let first = UInt32(format.firstIndex)
    guard ring.base == first | first << 16 else {
      peer.world.find("ring \(index) is said to begin at \(ring.base)")
      return nil
    }
    return LyingRing(
      format, size: ring.size, descriptors: addresses.descriptors, driver: addresses.available, device: addresses.used,
      memory: LyingMemory(regions))
  }

  /// Tells a driver that knows CONFIG that the configuration has changed.
  func noteConfigChange() {
    guard channel >= 0, protocolFeatures.contains(.config) else { return }
    let header = MessageHeader(request: BackendCode.configChange.rawValue, payloadSize: 0)
    let bytes = header.encoded
    _ = unsafe netdev_unix_send(channel, bytes, bytes.count, nil, 0)
  }

  func reportError(pair index: Int) {
    guard let error = rings[UInt32(2 * index)]?.error, error >= 0 else { return }
    _ = netdev_eventfd_signal(error)
  }
}
