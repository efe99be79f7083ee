internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import PacketFormats
internal import Virtio

/// The queue pair of a UDP port: datagrams in bursts from the socket, frames in bursts to it.
///
/// Frames and datagrams are copied once through private memory of this port, where they are built and judged: what the
/// driver changes meanwhile does not matter. A transmit buffer is released as soon as it has been copied; up to a burst of
/// datagrams that the socket does not take waits here, and is counted when it has gone or been dropped. The socket is watched
/// only while datagrams can be received: without receive buffers they wait in the kernel rather than being read and dropped,
/// and after a refusal a pause goes by.
@safe final class HostUDPPort: BackendPort {
  private let socket: HostSocket
  private var gateway: UDPGateway

  private static let burst = Int(NETDEV_UDP_BURST)
  /// Room for the longest frame: 42 bytes of headers, 1472 of payload, rounded up.
  private static let slotLength = 1536
  private static let maximumPayload = 1472

  // Owned by this port, freed in deinit; touched on the loop. A slot a message of each direction.
  private let incoming: UnsafeMutableRawPointer
  private let outgoing: UnsafeMutableRawPointer
  private let received: UnsafeMutablePointer<netdev_udp_message>
  private let waiting: UnsafeMutablePointer<netdev_udp_message>
  /// Datagrams in `waiting` that the socket has not taken yet.
  private var waitingStart = 0
  private var waitingEnd = 0
  /// Lengths of their frames.
  private var waitingLengths = InlineArray<64, Int>(repeating: 0)

  private var reading: ReadReadiness?
  private var writing: WriteReadiness?
  private var loop: LoopExecutor?
  private var bell: ServiceBell?
  /// No datagram passes any more.
  private var isLost = false

  init(socket: HostSocket, gateway: UDPGateway) {
    self.socket = socket
    self.gateway = gateway
    unsafe incoming = .allocate(byteCount: Self.burst * Self.slotLength, alignment: 64)
    unsafe outgoing = .allocate(byteCount: Self.burst * Self.slotLength, alignment: 64)
    unsafe incoming.initializeMemory(as: UInt8.self, repeating: 0, count: Self.burst * Self.slotLength)
    unsafe outgoing.initializeMemory(as: UInt8.self, repeating: 0, count: Self.burst * Self.slotLength)
    unsafe received = .allocate(capacity: Self.burst)
    unsafe received.initialize(repeating: netdev_udp_message(), count: Self.burst)
    unsafe waiting = .allocate(capacity: Self.burst)
    unsafe waiting.initialize(repeating: netdev_udp_message(), count: Self.burst)
  }

  deinit {
    unsafe incoming.deallocate()
    unsafe outgoing.deallocate()
    unsafe received.deallocate()
    unsafe waiting.deallocate()
  }

  // MARK: Life

  func start(_ bell: ServiceBell) throws(BackendError) {
    loop = bell.loop
    self.bell = bell
    do throws(LoopError) {
      reading = try ReadReadiness(descriptor: socket.descriptor, bell: bell)
      writing = try WriteReadiness(descriptor: socket.descriptor, bell: bell)
    } catch {
      throw BackendError(.system, "watching a UDP socket", errno: error.errno, advice: error.description)
    }
    setEnabled(true)
  }

  func setEnabled(_ enabled: Bool) {
    guard !isLost else { return }
    reading?.enable(enabled)
  }

  func setReceiveFilter(_ filter: ReceiveFilter) { gateway.addresses.deviceMAC = filter.station }

  func close() {
    stopWatching()
    loop = nil
    bell = nil
  }

  /// No datagram passes any more: what the driver sends is dropped, and the device is told why.
  private func end(_ error: BackendError) {
    guard !isLost else { return }
    isLost = true
    stopWatching()
    bell?.report(.lost(error))
  }

  private func stopWatching() {
    reading?.cancel()
    writing?.cancel()
    reading = nil
    writing = nil
  }

  // MARK: Service

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    let now = loop?.now ?? 0
    guard !isLost else {
      dropWaiting(&rings, .linkDown)
      return rings.discardTransmit(budget: budget, .linkDown) ? .moreWork : []
    }
    rings.beginReceive()
    return transmit(&rings, budget: budget, now: now).union(receive(&rings, budget: budget, now: now))
  }

  /// Frames of the device: each is copied, its buffer released, and what it amounts to done.
  private func transmit<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int, now: UInt64)
    -> ServeResult
  {
    if waitingStart != waitingEnd, !flush(&rings) { return .transmitBlocked }
    rings.beginTransmit()
    var budget = budget
    while waitingEnd < Self.burst || flush(&rings) {
      guard let chain = rings.nextFrame(&budget) else { break }
      let slot = unsafe UnsafeMutableRawBufferPointer(
        start: outgoing + waitingEnd * Self.slotLength, count: Self.slotLength)
      let length = unsafe rings.copyFrame(of: chain, into: slot)
      guard length <= Self.slotLength else {
        rings.drop(chain, .tooLong)
        continue
      }
      switch unsafe carry(slot, length: length, &rings, now: now) {
      case .dropped(let reason): rings.drop(chain, reason)
      case .answered: rings.release(chain, frameLength: length)
      case .waits: rings.release(chain)
      }
    }
    if waitingStart != waitingEnd, !flush(&rings) { return .transmitBlocked }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// What became of a frame's private copy.
  private enum Carried {
    /// It is answered, on the spot.
    case answered
    /// It waits for the socket.
    case waits
    case dropped(DropReason)
  }

  /// Does what a private copy of a frame asks for.
  private func carry<Ring: DeviceRing & ~Copyable>(
    _ slot: UnsafeMutableRawBufferPointer, length: Int, _ rings: inout EngineRings<Ring>, now: UInt64
  ) -> Carried {
    // The slot is this port's own and outlives the span.
    var frame = unsafe MutableRawSpan(_unsafeBytes: slot)
    switch gateway.answer(&frame, length: length, now: now) {
    case .datagram(let host, let payload):
      guard payload.count <= Self.maximumPayload else { return .dropped(.tooLong) }
      // The range lies in the frame, and the frame in the slot.
      unsafe waiting[waitingEnd] = netdev_udp_message(
        bytes: slot.baseAddress.map { unsafe $0 + payload.lowerBound }, length: UInt32(payload.count),
        interface: host.interface, other: netdev_udp_address(host.address), own: netdev_udp_address(host.own),
        port: host.port, truncated: false)
      waitingLengths[waitingEnd] = length
      waitingEnd += 1
      return .waits
    case .reply(let replyLength):
      let reply = unsafe UnsafeRawBufferPointer(rebasing: slot[..<replyLength])
      return unsafe rings.deliver(reply).map { .dropped($0) } ?? .answered
    case .drop(let reason):
      return .dropped(reason)
    }
  }

  /// Gives the socket what waits. False when it takes no more for now.
  private func flush<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>) -> Bool {
    guard let writing, !writing.isBlocked else { return false }
    while waitingStart < waitingEnd {
      let count = unsafe netdev_udp_send(socket.socket, waiting + waitingStart, CInt(waitingEnd - waitingStart))
      if count > 0 {
        writing.succeeded()
        for _ in 0..<min(Int(count), waitingEnd - waitingStart) {
          rings.countTransmitted(frameLength: waitingLengths[waitingStart])
          waitingStart += 1
        }
      } else if refused(-count, &rings) {
        return false
      }
    }
    (waitingStart, waitingEnd) = (0, 0)
    return true
  }

  /// Acts on the first datagram that waits, which the socket did not take. True when no other one need be tried now.
  private func refused<Ring: DeviceRing & ~Copyable>(_ error: CInt, _ rings: inout EngineRings<Ring>) -> Bool {
    let refusal = UDPRefusal(sending: error)
    switch refusal {
    case .drop(let reason):
      // Of this one only: the others are for other hosts.
      rings.countDrop(.transmitted, reason)
      waitingStart += 1
      return false
    case .lost:
      dropWaiting(&rings, .linkDown)
      end(socket.lossError(errno: error, "sending from"))
      return true
    case .notReady, .pause:
      if refusal == .notReady { writing?.wasFull() } else { writing?.beginPause() }
      return true
    }
  }

  func dropWaiting<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>) {
    dropWaiting(&rings, .pairDisabled)
  }

  private func dropWaiting<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, _ reason: DropReason) {
    while waitingStart < waitingEnd {
      rings.countDrop(.transmitted, reason)
      waitingStart += 1
    }
    (waitingStart, waitingEnd) = (0, 0)
  }

  /// Datagrams from the socket, no more than there are buffers for.
  private func receive<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int, now: UInt64)
    -> ServeResult
  {
    guard let reading, reading.mayRead else { return [] }
    var done = 0
    while done < budget {
      let limit = min(budget - done, Self.burst)
      let wanted = min(limit, rings.receive.available(upTo: limit) + rings.handEnd - rings.handStart)
      guard wanted > 0 else {
        reading.waitForBuffers()
        #if Testing
        if unsafe netdev_fault_is_planted("forgotten-udp-buffers") { return [] }
        #endif
        return rings.receive.isBroken ? [] : .needsReceiveBuffers
      }
      for index in 0..<wanted {
        // Behind the place of the headers, in a slot of this port's own.
        let room = unsafe incoming + index * Self.slotLength + UDPFrame.headerLength
        unsafe received[index].bytes = room
        unsafe received[index].length = UInt32(Self.maximumPayload)
      }
      let count = unsafe Int(netdev_udp_receive(socket.socket, received, CInt(wanted)))
      guard count >= 0 else {
        stopReading(CInt(truncatingIfNeeded: -count))
        return []
      }
      for index in 0..<min(count, wanted) {
        if let reason = deliver(index, &rings, now: now) { rings.countDrop(.received, reason) }
      }
      if count > 0 { reading.succeeded() }
      done += count
      if count < wanted {
        // Nothing more; or an error, which the next call tells if the source fires again.
        reading.ranDry()
        return []
      }
    }
    return .moreWork
  }

  /// The kernel gave no datagram: what to wait for.
  private func stopReading(_ error: CInt) {
    switch UDPRefusal(receiving: error) {
    case .notReady: reading?.ranDry()
    case .lost: end(socket.lossError(errno: error, "receiving from"))
    case .pause, .drop:
      guard reading?.refused(passes: UDPRefusal.passes(error)) == false else { return }
      end(socket.lossError(errno: error, "receiving from"))
    }
  }

  /// Makes a frame of one datagram and puts it on the receive ring; why not, if it is dropped.
  private func deliver<Ring: DeviceRing & ~Copyable>(_ index: Int, _ rings: inout EngineRings<Ring>, now: UInt64)
    -> DropReason?
  {
    let message = unsafe received[index]
    guard unsafe !message.truncated else { return .tooLong }
    let sender = unsafe SenderTable.Key(
      address: IPv6Address(message.other), port: message.port, own: IPv6Address(message.own),
      interface: message.interface)
    // Nobody can be answered at port 0 (RFC 768).
    guard sender.port != 0 else { return .malformedFrame }
    let slot = unsafe UnsafeMutableRawBufferPointer(
      start: incoming + index * Self.slotLength, count: Self.slotLength)
    var frame = unsafe MutableRawSpan(_unsafeBytes: slot)
    guard let length = unsafe gateway.frame(from: sender, payloadLength: Int(message.length), in: &frame, now: now)
    else { return .tooManyPeers }
    return unsafe rings.deliver(UnsafeRawBufferPointer(rebasing: slot[..<length]))
  }
}
