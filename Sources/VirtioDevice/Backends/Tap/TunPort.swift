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
/// judged: what the driver changes meanwhile does not matter. The descriptor is watched as `TapPort` does it.
@safe final class TunPort: BackendPort {
  private let queue: TapQueue
  private let number: Int
  private let link: TunLink
  /// The longest packet both ways.
  private let mtu: Int
  private let watched: TapPort.Watched?

  // Owned by this port, freed in deinit; touched on the loop.
  /// The frame that comes from the driver, and the one that goes there, each with room for a byte more than is allowed.
  private let outgoing: UnsafeMutableRawBufferPointer
  private let incoming: UnsafeMutableRawBufferPointer
  /// What the kernel is given: the private header, then the packet.
  private let vector: UnsafeMutablePointer<iovec>
  /// 12 bytes of header for each direction.
  private let headers: UnsafeMutableRawPointer

  private var bell: ServiceBell?
  private var watch: TapWatch?
  private var reading: ReadReadiness?
  private var writing: WriteReadiness?
  private var isEnabled = true
  private var isDown = false
  /// No packet passes any more.
  private var isLost = false

  init(queue: TapQueue, number: Int, mtu: Int, station: MACAddress, watching watched: TapPort.Watched?) {
    self.queue = queue
    self.number = number
    self.mtu = mtu
    self.watched = watched
    link = TunLink(device: station)
    let room = EthernetHeader.length + max(mtu, TunLink.longestAnswer) + 1
    unsafe outgoing = .allocate(byteCount: room, alignment: 16)
    unsafe incoming = .allocate(byteCount: room, alignment: 16)
    unsafe outgoing.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe incoming.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe vector = .allocate(capacity: 2)
    unsafe vector.initialize(repeating: iovec(), count: 2)
    unsafe headers = .allocate(byteCount: 32, alignment: 16)
    unsafe headers.initializeMemory(as: UInt8.self, repeating: 0, count: 32)
  }

  deinit {
    unsafe outgoing.deallocate()
    unsafe incoming.deallocate()
    unsafe vector.deallocate()
    unsafe headers.deallocate()
  }

  // MARK: Life

  func start(_ bell: ServiceBell) throws(BackendError) {
    self.bell = bell
    do throws(LoopError) {
      reading = try ReadReadiness(descriptor: queue.descriptor, bell: bell)
      writing = try WriteReadiness(descriptor: queue.descriptor, bell: bell)
    } catch {
      throw BackendError(
        .system, "watching queue \(number) of \(queue.kind.word) \(queue.interface)", errno: error.errno,
        advice: error.description)
    }
    if queue.takePrepared() {
      reading?.enable(true)
    } else {
      attach(true)
    }
    guard let watched else { return }
    // Without a thread for it, packets tell what becomes of the interface.
    watch = try? TapWatch(
      queue: queue, link: watched.link, queues: watched.queues, mtu: mtu, portLoop: bell.loop, reports: watched.reports
    ) { [weak self] in self?.note($0) }
  }

  private func note(_ event: PortEvent) {
    if case .lost(let error) = event { end(error) } else { bell?.report(event) }
  }

  func setEnabled(_ enabled: Bool) {
    isEnabled = enabled
    guard !isLost else { return }
    if !enabled {
      reading?.enable(false)
      writing?.unblock()
    }
    attach(enabled)
  }

  /// A port on its way to elsewhere and back.
  private struct Reference: @unchecked Sendable {
    // Proof of Sendable: the port is reached on its loop only.
    weak let port: TunPort?
  }

  /// Has the kernel steer flows to the queue, or not: that may block, and is done elsewhere, behind what was asked before.
  private func attach(_ isAttached: Bool) {
    guard let loop = bell?.loop else { return }
    let (queue, reference) = (queue, Reference(port: self))
    queue.calls.start {
      let result = Result { () throws(BackendError) in
        if isAttached { try queue.attach() } else { try queue.setAttached(false) }
      }
      loop.execute {
        guard let port = reference.port, port.bell != nil, !port.isLost else { return }
        switch result {
        case .success: if isAttached { port.reading?.enable(port.isEnabled) }
        case .failure(let error): port.end(error)
        }
      }
    }
  }

  func close() {
    guard bell != nil else { return }
    stopWatching()
    bell = nil
    if queue.isMultiQueue { queue.calls.start { [queue] in try? queue.setAttached(false) } }
  }

  /// No packet passes any more: what the driver sends is dropped, and the device is told why.
  private func end(_ error: BackendError) {
    guard !isLost else { return }
    isLost = true
    stopWatching()
    bell?.report(.lost(error))
  }

  private func stopWatching() {
    reading?.cancel()
    writing?.cancel()
    watch?.close()
    reading = nil
    writing = nil
    watch = nil
  }

  // MARK: Service

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard !isLost else { return rings.discardTransmit(budget: budget, .linkDown) ? .moreWork : [] }
    // Answers to the driver's questions need receive buffers too.
    rings.beginReceive()
    return transmit(&rings, budget: budget).union(receive(&rings, budget: budget))
  }

  private func transmit<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard let writing, !writing.isBlocked else { return .transmitBlocked }
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
        if refused(TapRefusal(writing: error), error, chain, &rings) { return isLost ? [] : .transmitBlocked }
      }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// Writes the packet of the frame that was copied, behind a plain header. Zero, or the error.
  private func write(_ length: Int) -> CInt {
    unsafe vector[0] = iovec(iov_base: headers, iov_len: VirtioNetHeader.size)
    // Inside: the frame was found to have a header.
    let packet = unsafe outgoing.baseAddress.map { unsafe $0 + EthernetHeader.length }
    unsafe vector[1] = iovec(iov_base: packet, iov_len: length - EthernetHeader.length)
    return unsafe -netdev_tap_write(queue.descriptor, vector, 2)
  }

  /// Acts on a packet that was not written. True when no other one need be tried now.
  private func refused<Ring: DeviceRing & ~Copyable>(
    _ refusal: TapRefusal, _ error: CInt, _ chain: DescriptorChain, _ rings: inout EngineRings<Ring>
  ) -> Bool {
    switch refusal {
    case .drop(let reason), .droppedAndPause(let reason):
      rings.drop(chain, reason)
      return false
    case .linkDown:
      rings.drop(chain, .linkDown)
      noteDown()
      return false
    case .lost:
      rings.drop(chain, .linkDown)
      end(queue.lossError(errno: error, "writing to"))
      return true
    case .notReady, .pause:
      guard rings.putBack(chain) else {
        rings.drop(chain, .refused)
        return false
      }
      if refusal == .notReady { writing?.wasFull() } else { writing?.beginPause() }
      return true
    }
  }

  /// The interface is down; it is up again when it is writable.
  private func noteDown() {
    guard !isDown else { return }
    isDown = true
    bell?.report(.link(isUp: false))
    writing?.whenWritable { [weak self] in
      self?.isDown = false
      self?.bell?.report(.link(isUp: true))
    }
  }

  private func receive<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard let reading, reading.mayRead else { return [] }
    let longest = VirtioNetHeader.size + EthernetHeader.length + mtu
    var done = 0
    while done < budget {
      guard rings.takeBuffers(for: longest) > 0 else {
        reading.waitForBuffers()
        #if Testing
        if unsafe netdev_fault_is_planted("forgotten-tun-buffers") { return [] }
        #endif
        return rings.receive.isBroken ? [] : .needsReceiveBuffers
      }
      let count = read()
      guard count >= 0 else {
        stopReading(CInt(truncatingIfNeeded: -count), &rings)
        return []
      }
      done += 1
      reading.succeeded()
      if let reason = deliver(count - VirtioNetHeader.size, &rings) { rings.countDrop(.received, reason) }
    }
    return .moreWork
  }

  /// Reads a packet behind the place of its Ethernet header; its length with the kernel's header, or the error.
  private func read() -> Int {
    unsafe vector[0] = iovec(iov_base: headers + 16, iov_len: VirtioNetHeader.size)
    let room = unsafe incoming.baseAddress.map { unsafe $0 + EthernetHeader.length }
    // A byte more than is allowed shows that a packet is longer.
    unsafe vector[1] = iovec(iov_base: room, iov_len: mtu + 1)
    return unsafe netdev_tap_read(queue.descriptor, vector, 2)
  }

  /// Makes a frame of the packet that was read and puts it on the receive ring; why not, if it is dropped.
  private func deliver<Ring: DeviceRing & ~Copyable>(
    _ length: Int, _ rings: inout EngineRings<Ring>
  ) -> DropReason? {
    // Flags and kind of segmentation (VIRTIO 1.4 §5.1.9); that a checksum was found right (2) asks for nothing.
    let header = unsafe UInt16(littleEndian: headers.load(fromByteOffset: 16, as: UInt16.self))
    guard header & 0xFF01 == 0 else { return .offloadNotNegotiated }
    guard length > 0 else { return .malformedFrame }
    guard length <= mtu else { return .tooLong }
    var frame = unsafe MutableRawSpan(_unsafeBytes: incoming)
    if let reason = link.frame(&frame) { return reason }
    return unsafe rings.deliver(UnsafeRawBufferPointer(rebasing: incoming[..<(EthernetHeader.length + length)]))
  }

  /// The kernel gave no packet: what to wait for.
  private func stopReading<Ring: DeviceRing & ~Copyable>(_ error: CInt, _ rings: inout EngineRings<Ring>) {
    let refusal = TapRefusal(reading: error)
    if case .droppedAndPause(let reason) = refusal { rings.countDrop(.received, reason) }
    switch refusal {
    case .notReady: reading?.ranDry()
    case .lost: end(queue.lossError(errno: error, "reading from"))
    case .pause, .droppedAndPause, .drop, .linkDown:
      guard reading?.refused(passes: TapRefusal.passes(error)) == false else { return }
      end(queue.lossError(errno: error, "reading from"))
    }
  }
}
