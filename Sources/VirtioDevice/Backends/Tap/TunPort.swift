internal import CNetdevSystem
internal import Glibc
internal import HostInterfaces
internal import LibeventConcurrency
internal import PacketFormats
internal import Virtio

/// One queue of a TUN interface: packets without Ethernet on the kernel's side, frames on the driver's.
///
/// The Ethernet header is made and taken off here, by a link that has one other station, the router's (`TunLink`), which answers
/// whoever asks where an address is. Frames and packets are copied once, through private memory of this port, where they are
/// judged: what the driver changes meanwhile does not matter.
@safe final class TunPort: BackendPort {
  private let served: ServedTapQueue
  private var link: TunLink
  /// The longest packet both ways.
  private let mtu: Int

  // Owned by this port, freed in deinit; touched on the loop.
  /// The frame that comes from the driver, and the one that goes there, each with room for a byte more than is allowed.
  private let outgoing: UnsafeMutableRawBufferPointer
  private let incoming: UnsafeMutableRawBufferPointer
  /// What the kernel is given: the private header, then the packet.
  private let vector: UnsafeMutablePointer<iovec>
  private let headers = TapHeaders()

  init(_ served: ServedTapQueue, mtu: Int, station: MACAddress) {
    self.served = served
    self.mtu = mtu
    link = TunLink(device: station)
    let room = EthernetHeader.length + max(mtu, TunLink.longestAnswer) + 1
    unsafe outgoing = .allocate(byteCount: room, alignment: 16)
    unsafe incoming = .allocate(byteCount: room, alignment: 16)
    unsafe outgoing.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe incoming.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe vector = .allocate(capacity: 2)
    unsafe vector.initialize(repeating: iovec(), count: 2)
  }

  deinit {
    unsafe outgoing.deallocate()
    unsafe incoming.deallocate()
    unsafe vector.deallocate()
  }

  func start(_ bell: ServiceBell) throws(BackendError) { try served.start(bell) }

  func setEnabled(_ enabled: Bool) { served.setEnabled(enabled) }

  func setReceiveFilter(_ filter: ReceiveFilter) { link.device = filter.station }

  func close() { served.close() }

  // MARK: Service

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard !served.isLost else { return rings.discardTransmit(budget: budget, .linkDown) ? .moreWork : [] }
    // Answers to the driver's questions need receive buffers too.
    rings.beginReceive()
    return transmit(&rings, budget: budget).union(receive(&rings, budget: budget))
  }

  private func transmit<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard let writing = served.writing, !writing.isBlocked else { return .transmitBlocked }
    rings.beginTransmit()
    var budget = budget
    while let chain = rings.nextFrame(&budget) {
      let length = unsafe rings.copyFrame(of: chain, into: outgoing)
      guard length <= EthernetHeader.length + mtu else {
        rings.drop(chain, .tooLong)
        continue
      }
      // The port's own memory, which outlives the span.
      var frame = unsafe MutableRawSpan(_unsafeBytes: outgoing)
      switch link.judge(&frame, length: length) {
      case .drop(let reason): rings.drop(chain, reason)
      case .answer(let count):
        let answer = unsafe UnsafeRawBufferPointer(rebasing: outgoing[..<count])
        if let reason = unsafe rings.deliver(answer) {
          rings.drop(chain, reason)
        } else {
          rings.release(chain, frameLength: length)
        }
      case .packet:
        let error = write(length)
        guard error != 0 else {
          writing.succeeded()
          rings.release(chain, frameLength: length)
          continue
        }
        if served.refused(error, chain, &rings) { return served.isLost ? [] : .transmitBlocked }
      }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// Writes the packet of the frame that was copied, behind a plain header. Zero, or the error.
  private func write(_ length: Int) -> CInt {
    unsafe vector[0] = iovec(iov_base: headers.plain, iov_len: VirtioNetHeader.size)
    // Inside: the frame was found to have a header.
    let packet = unsafe outgoing.baseAddress.map { unsafe $0 + EthernetHeader.length }
    unsafe vector[1] = iovec(iov_base: packet, iov_len: length - EthernetHeader.length)
    return unsafe -netdev_tap_write(served.queue.descriptor, vector, 2)
  }

  private func receive<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    let longest = VirtioNetHeader.size + EthernetHeader.length + mtu
    return served.receive(&rings, budget: budget, longest: longest) { rings in
      let count = read()
      guard count >= 0 else { return CInt(truncatingIfNeeded: -count) }
      if let reason = deliver(count - VirtioNetHeader.size, &rings) { rings.countDrop(.received, reason) }
      return 0
    }
  }

  /// Reads a packet behind the place of its Ethernet header; its length with the kernel's header, or the error.
  private func read() -> Int {
    unsafe vector[0] = iovec(iov_base: headers.received, iov_len: VirtioNetHeader.size)
    let room = unsafe incoming.baseAddress.map { unsafe $0 + EthernetHeader.length }
    // Of a header that has become longer the rest lies where the packet should begin, and the kernel may leave it as it is: it is no
    // packet then, and not as the one before began.
    unsafe room?.storeBytes(of: 0, as: UInt8.self)
    // A byte more than is allowed shows that a packet is longer.
    unsafe vector[1] = iovec(iov_base: room, iov_len: mtu + 1)
    return unsafe netdev_tap_read(served.queue.descriptor, vector, 2)
  }

  /// Makes a frame of the packet that was read and puts it on the receive ring; why not, if it is dropped.
  private func deliver<Ring: DeviceRing & ~Copyable>(
    _ length: Int, _ rings: inout EngineRings<Ring>
  ) -> DropReason? {
    guard headers.isPlain else { return served.objection(to: headers) }
    guard length > 0 else { return .malformedFrame }
    guard length <= mtu else { return .tooLong }
    var frame = unsafe MutableRawSpan(_unsafeBytes: incoming)
    if let reason = link.frame(&frame) {
      // The kernel has no such packets, unless they do not begin where it was agreed.
      served.askAboutHeaders()
      return reason
    }
    return unsafe rings.deliver(UnsafeRawBufferPointer(rebasing: incoming[..<(EthernetHeader.length + length)]))
  }
}
