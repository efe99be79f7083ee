internal import CNetdevSystem
internal import Glibc
internal import LibeventConcurrency
internal import PacketFormats
internal import Virtio

/// The queue pair of a UDP port: datagrams in bursts from the socket, frames in bursts to it.
///
/// Frames and datagrams are copied once through private memory of this port, where they are built and judged: what the
/// driver changes meanwhile does not matter. A transmit buffer is released as soon as it has been copied; up to a burst of
/// datagrams that the socket does not take waits here. The socket is watched only while there are receive buffers, so that
/// datagrams wait in the kernel rather than being read and dropped.
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

  private var readable: LoopSource?
  private var writable: LoopSource?
  private var loop: LoopExecutor?
  private var mayRead = false
  private var isWatching = false
  private var isBlocked = false

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
    do throws(LoopError) {
      readable = try bell.loop.makeSource(descriptor: socket.descriptor, readiness: .readable) { [weak self] in
        self?.mayRead = true
        bell.ring()
      }
      writable = try bell.loop.makeSource(descriptor: socket.descriptor, readiness: .writable) { [weak self] in
        self?.isBlocked = false
        self?.writable?.suspend()
        bell.ring()
      }
    } catch {
      throw BackendError(.system, "watching a UDP socket", errno: error.errno, advice: error.description)
    }
    setEnabled(true)
  }

  func setEnabled(_ enabled: Bool) {
    mayRead = enabled
    watch(enabled)
  }

  func close() {
    readable?.cancel()
    writable?.cancel()
    readable = nil
    writable = nil
    loop = nil
  }

  private func watch(_ watching: Bool) {
    guard watching != isWatching else { return }
    isWatching = watching
    if watching { readable?.resume() } else { readable?.suspend() }
  }

  // MARK: Service

  func serve(_ rings: inout EngineRings, budget: Int) -> ServeResult {
    let now = loop?.now ?? 0
    rings.beginReceive()
    return transmit(&rings, budget: budget, now: now).union(
      mayRead ? receive(&rings, budget: budget, now: now) : [])
  }

  /// Frames of the device: each is copied, its buffer released, and what it amounts to done.
  private func transmit(_ rings: inout EngineRings, budget: Int, now: UInt64) -> ServeResult {
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
      if let reason = unsafe carry(slot, length: length, &rings, now: now) {
        rings.drop(chain, reason)
      } else {
        rings.release(chain, frameLength: length)
      }
    }
    if waitingStart != waitingEnd, !flush(&rings) { return .transmitBlocked }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// Does what a private copy of a frame asks for; why not, if it is dropped.
  private func carry(
    _ slot: UnsafeMutableRawBufferPointer, length: Int, _ rings: inout EngineRings, now: UInt64
  ) -> DropReason? {
    // The slot is this port's own and outlives the span.
    var frame = unsafe MutableRawSpan(_unsafeBytes: slot)
    switch gateway.answer(&frame, length: length, now: now) {
    case .datagram(let host, let payload):
      guard payload.count <= Self.maximumPayload else { return .tooLong }
      // The range lies in the frame, and the frame in the slot.
      unsafe waiting[waitingEnd] = netdev_udp_message(
        bytes: slot.baseAddress.map { unsafe $0 + payload.lowerBound }, length: UInt32(payload.count),
        address: host.address, port: host.port, truncated: false)
      waitingEnd += 1
      return nil
    case .reply(let replyLength):
      let reply = unsafe UnsafeRawBufferPointer(rebasing: slot[..<replyLength])
      return unsafe rings.deliver(reply)
    case .drop(let reason):
      return reason
    }
  }

  /// Gives the socket what waits. False when it takes no more for now.
  private func flush(_ rings: inout EngineRings) -> Bool {
    guard !isBlocked else { return false }
    while waitingStart < waitingEnd {
      let count = unsafe netdev_udp_send(
        socket.descriptor, waiting + waitingStart, CInt(waitingEnd - waitingStart))
      if count > 0 {
        waitingStart += Int(count)
        continue
      }
      switch -count {
      case EAGAIN, ENOBUFS, ENOMEM:
        isBlocked = true
        writable?.resume()
        return false
      case EMSGSIZE: rings.statistics.drops[.tooLong] &+= 1
      case ENETDOWN, ENETUNREACH, EHOSTUNREACH, EHOSTDOWN: rings.statistics.drops[.linkDown] &+= 1
      default: rings.statistics.drops[.refused] &+= 1
      }
      // Of this one only: the others are for other hosts.
      waitingStart += 1
    }
    (waitingStart, waitingEnd) = (0, 0)
    return true
  }

  /// Datagrams from the socket, no more than there are buffers for.
  private func receive(_ rings: inout EngineRings, budget: Int, now: UInt64) -> ServeResult {
    var done = 0
    while done < budget {
      let wanted = min(budget - done, Self.burst, rings.receive.seen + rings.handEnd - rings.handStart)
      guard wanted > 0 else {
        watch(false)
        return rings.receive.isBroken ? [] : .needsReceiveBuffers
      }
      for index in 0..<wanted {
        // Behind the place of the headers, in a slot of this port's own.
        let room = unsafe incoming + index * Self.slotLength + UDPFrame.headerLength
        unsafe received[index].bytes = room
        unsafe received[index].length = UInt32(Self.maximumPayload)
      }
      let count = unsafe Int(netdev_udp_receive(socket.descriptor, received, CInt(wanted)))
      for index in 0..<max(count, 0) {
        if let reason = deliver(index, &rings, now: now) { rings.statistics.drops[reason] &+= 1 }
      }
      done += max(count, 0)
      if count < wanted {
        // Nothing more, or an error of an earlier datagram, which is gone by having been told.
        mayRead = false
        watch(true)
        return []
      }
    }
    return .moreWork
  }

  /// Makes a frame of one datagram and puts it on the receive ring; why not, if it is dropped.
  private func deliver(_ index: Int, _ rings: inout EngineRings, now: UInt64) -> DropReason? {
    let message = unsafe received[index]
    guard unsafe !message.truncated else { return .tooLong }
    let sender = unsafe SenderTable.Key(address: message.address, port: message.port)
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
