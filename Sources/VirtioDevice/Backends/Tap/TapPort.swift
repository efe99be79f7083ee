internal import CNetdevSystem
internal import Glibc
internal import HostInterfaces
internal import LibeventConcurrency
internal import PacketFormats
internal import Virtio

/// One queue of a TAP interface, served in place: `writev` from the driver's transmit buffers, `readv` into its receive
/// buffers, no copy in between.
///
/// The virtio-net header is not passed through: the kernel gets and gives one in private memory, and the driver gets a plain
/// one, so that nothing that was not negotiated crosses, and the driver cannot change a header after it was judged.
@safe final class TapPort: BackendPort {
  let served: ServedTapQueue
  let number: Int
  /// One limit for both ways.
  private let limit: FrameLimit
  let observer: (any FrameObserver)?

  // Owned by this port, freed in deinit; touched on the loop.
  /// What the kernel is given: the private header, the driver's buffers, and a byte behind them.
  let vector: UnsafeMutablePointer<iovec>
  let headers = TapHeaders()
  static let vectorCapacity = 1024  // IOV_MAX

  init(_ served: ServedTapQueue, number: Int, mtu: Int, observer: (any FrameObserver)?) {
    self.served = served
    self.number = number
    self.observer = observer
    limit = FrameLimit(mtu: mtu)
    unsafe vector = .allocate(capacity: Self.vectorCapacity)
  }

  deinit { unsafe vector.deallocate() }

  func start(_ bell: ServiceBell) throws(BackendError) { try served.start(bell) }

  func setEnabled(_ enabled: Bool) { served.setEnabled(enabled) }

  func setReceiveFilter(_ filter: ReceiveFilter) { served.setReceiveFilter(filter) }

  func close() { served.close() }

  // MARK: Service

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard !served.isLost else { return rings.discardTransmit(budget: budget, .linkDown) ? .moreWork : [] }
    return transmit(&rings, budget: budget).union(receive(&rings, budget: budget))
  }

  private func transmit<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard let writing = served.writing, !writing.isBlocked else { return .transmitBlocked }
    rings.beginTransmit()
    var budget = budget
    while let chain = rings.nextFrame(&budget) {
      // One place for the header.
      guard chain.readableCount < Self.vectorCapacity else {
        rings.drop(chain, .tooManySegments)
        continue
      }
      let length = chain.readableLength - VirtioNetHeader.size
      guard length <= limit.untagged || admits(chain, length) else {
        rings.drop(chain, .tooLong)
        continue
      }
      let error = write(chain)
      guard error != 0 else {
        writing.succeeded()
        if let observer { report(chain, length: length, to: observer) }
        rings.release(chain, frameLength: length)
        continue
      }
      if served.refused(error, chain, &rings) { return served.isLost ? [] : .transmitBlocked }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  private func receive<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    let longest = VirtioNetHeader.size + limit.longest
    return served.receive(&rings, budget: budget, longest: longest) { rings in
      let offered = fillVector(from: &rings)
      let count = unsafe netdev_tap_read(served.queue.descriptor, vector, CInt(offered.places))
      guard count >= 0 else { return CInt(truncatingIfNeeded: -count) }
      if let reason = objection(toFrameOf: count, room: offered.room, longest, &rings) {
        rings.countDrop(.received, reason)
      } else {
        if let observer { report(&rings, length: count - VirtioNetHeader.size, to: observer) }
        rings.finishReceive(length: count)
      }
      return 0
    }
  }

  /// Why a frame that was read into the buffers in hand is not handed on; nil when it is.
  @inline(__always)
  private func objection<Ring: DeviceRing & ~Copyable>(
    toFrameOf count: Int, room: Int, _ longest: Int, _ rings: inout EngineRings<Ring>
  ) -> DropReason? {
    let length = count - VirtioNetHeader.size
    if length >= EthernetHeader.length, length <= limit.untagged, count <= room, headers.isPlain, !rings.isFiltering {
      return nil
    }
    return objectionInFull(toFrameOf: count, room: room, longest, &rings)
  }

  @inline(never)
  private func objectionInFull<Ring: DeviceRing & ~Copyable>(
    toFrameOf count: Int, room: Int, _ longest: Int, _ rings: inout EngineRings<Ring>
  ) -> DropReason? {
    guard headers.isPlain else { return served.objection(to: headers) }
    guard count <= room else {
      return room >= longest ? .tooLong : rings.lack(of: room)
    }
    let length = count - VirtioNetHeader.size
    guard length >= EthernetHeader.length else { return .malformedFrame }
    guard length <= limit.untagged || admits(&rings, length) else { return .tooLong }
    return rings.admitsFrameInHand(length: length) ? nil : .filtered
  }

  /// Whether a frame longer than one without tags has as many tags as it is longer.
  private func admits(_ chain: DescriptorChain, _ length: Int) -> Bool {
    unsafe admits(length) { unsafe chain.copyBytes(from: VirtioNetHeader.size, into: $0) }
  }

  private func admits<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, _ length: Int) -> Bool {
    unsafe admits(length) { unsafe rings.copyFromHand(at: VirtioNetHeader.size, into: $0) }
  }

  private func admits(_ length: Int, _ copy: (UnsafeMutableRawBufferPointer) -> Int) -> Bool {
    guard length <= limit.longest else { return false }
    var start = InlineArray<32, UInt8>(repeating: 0)
    var span = start.mutableSpan
    _ = unsafe span.withUnsafeMutableBytes { unsafe copy($0) }
    // Bytes: any value is a valid one.
    return unsafe limit.admits(length: length, startingWith: span.bytes)
  }
}
