internal import CNetdevSystem
internal import LibeventConcurrency
internal import Netdev
public import Virtio
internal import VirtioNet

/// One queue pair of a `LyingDevice`: reached by `LyingDevice.perform`, on the pair's loop.
public final class LyingPair {
  /// Whether the device interrupts after what it has done.
  public enum Interrupt: Sendable, Hashable {
    /// When the driver wants it, as the protocol says.
    case whenWanted
    /// Whether or not.
    case always
    /// Never: the interrupt is lost.
    case never
  }

  /// Position of the pair, from 0.
  public let index: Int
  /// What was negotiated.
  public let features: FeatureSet
  /// The driver's receive ring.
  public let receive: LyingQueue
  /// The driver's transmit ring.
  public let transmit: LyingQueue
  /// Interrupts raised.
  public private(set) var interrupts = 0
  /// Doorbells of the transmit ring.
  public private(set) var transmitKicks = 0
  /// Doorbells of the receive ring.
  public private(set) var receiveKicks = 0
  /// The driver has reset the device, or let go of it: what lies in the rings is nobody's word any more, and the buffers are others'.
  public private(set) var isOver = false
  /// Called at each doorbell.
  public var whenKicked: ((LyingPair) -> Void)?
  /// Called at the end of each turn of the loop, before the driver's own end of the turn: after its last look at the rings
  /// and before it arms interrupts and waits.
  public var beforeDriverEnds: ((LyingPair) -> Void)?

  private let loop: LoopExecutor
  private let onInterrupt: (receive: () -> Void, transmit: () -> Void)
  private let onFailure: (NetworkDeviceError) -> Void
  private let onKick: () -> Void
  private var hook: TurnHook.Token?

  /// One of the two queues, until both are there.
  struct Half {
    let placement: VirtioQueuePlacement
    let ring: LyingRing
    let bell: LyingBell
    let onInterrupt: () -> Void

    init(_ placement: VirtioQueuePlacement, _ ring: LyingRing, _ bell: LyingBell, _ onInterrupt: @escaping () -> Void) {
      self.placement = placement
      self.ring = ring
      self.bell = bell
      self.onInterrupt = onInterrupt
    }
  }

  convenience init(
    _ halves: (receive: Half, transmit: Half), loop: LoopExecutor, onFailure: @escaping (NetworkDeviceError) -> Void,
    onKick: @escaping () -> Void
  ) {
    let (receive, transmit) = halves
    self.init(
      index: receive.placement.pair, features: receive.placement.features, receive: receive.ring,
      transmit: transmit.ring, loop: loop, onInterrupt: (receive.onInterrupt, transmit.onInterrupt),
      onFailure: onFailure, onKick: onKick)
    receive.bell.pair = self
    transmit.bell.pair = self
  }

  init(
    index: Int, features: FeatureSet, receive: LyingRing, transmit: LyingRing, loop: LoopExecutor,
    onInterrupt: (receive: () -> Void, transmit: () -> Void), onFailure: @escaping (NetworkDeviceError) -> Void,
    onKick: @escaping () -> Void
  ) {
    self.index = index
    self.features = features
    let eventIndex = features.contains(.eventIndex)
    self.receive = LyingQueue(ring: receive, eventIndex: eventIndex)
    self.transmit = LyingQueue(ring: transmit, eventIndex: eventIndex)
    self.loop = loop
    self.onInterrupt = onInterrupt
    self.onFailure = onFailure
    self.onKick = onKick
  }

  /// On the loop, before the driver's queue joins it: this hook's `end` then comes before the driver's.
  func join() throws(LoopError) {
    let context = unsafe Unmanaged.passRetained(self).toOpaque()
    hook = try loop.addHook(
      unsafe TurnHook(
        stage: .driver, context: context, begin: { _ in },
        end: { context in
          // Retained until `leave`.
          unsafe Unmanaged<LyingPair>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.beforeDriverEnds?($0) }
          return false
        }))
  }

  /// On the loop: takes part in its turns no longer. The rings can still be written to.
  func leave() {
    isOver = true
    whenKicked = nil
    beforeDriverEnds = nil
    guard let hook else { return }
    self.hook = nil
    guard (try? loop.removeHook(hook)) != nil else { return }
    // The reference of `join`.
    unsafe Unmanaged.passUnretained(self).release()
  }
}

// MARK: - Interrupts and failures

extension LyingPair {
  /// Interrupts, whether or not there is a reason.
  public func interrupt() { interrupt(onInterrupt.receive) }

  private func interrupt(_ line: () -> Void) {
    interrupts += 1
    line()
  }

  /// Asks the loop for another turn before it sleeps.
  public func requestTurn() { loop.requestTurn() }

  func raise(_ queue: LyingQueue, _ interrupt: Interrupt) {
    let wanted = queue.wantsInterrupt()
    let line = queue === transmit ? onInterrupt.transmit : onInterrupt.receive
    switch interrupt {
    case .whenWanted: if wanted { self.interrupt(line) }
    case .always: self.interrupt(line)
    case .never: break
    }
  }

  /// The device sets NEEDS_RESET.
  public func needReset() {
    onFailure(NetworkDeviceError(.broken, "the device", offered: "NEEDS_RESET", advice: "close it and open it again"))
  }
}

// MARK: - Honest work

extension LyingPair {
  /// Releases a frame that the driver transmitted, by its position among those held; false when there is no such.
  @discardableResult public func release(at position: Int = 0, interrupt: Interrupt = .whenWanted) -> Bool {
    guard transmit.giveBack(at: position) else { return false }
    raise(transmit, interrupt)
    return true
  }

  /// Releases all frames that are held, oldest first, with one interrupt.
  public func releaseAll(interrupt: Interrupt = .whenWanted) {
    var count = 0
    while transmit.giveBack() { count += 1 }
    if count > 0 { raise(transmit, interrupt) }
  }

  /// The buffers of a held frame, header included, as descriptors.
  public func transmittedChain(at position: Int = 0) -> [LyingRing.Descriptor] {
    let held = transmit.held
    return held.indices.contains(position) ? transmit.chain(held[position]) : []
  }

  /// The net header and the bytes of a held frame as they are now; nil when there is none.
  public func transmitted(at position: Int = 0) -> (header: VirtioNetHeader, frame: [UInt8])? {
    let bytes = transmittedChain(at: position).flatMap { transmit.ring.bytes($0) }
    guard bytes.count >= VirtioNetHeader.size, let header = unsafe VirtioNetHeader(copied: bytes.span.bytes) else {
      return nil
    }
    return (header, Array(bytes[VirtioNetHeader.size...]))
  }

  /// Delivers a frame; false when there are too few buffers.
  ///
  /// - Parameters:
  ///   - frame: its bytes, without a net header.
  ///   - pieces: how many of the frame's bytes go to each buffer; nil puts all in one.
  ///   - header: the net header; nil writes that of a plain frame in as many buffers.
  ///   - interrupt: whether the driver is told.
  @discardableResult public func deliver(
    _ frame: [UInt8], pieces: [Int]? = nil, header: VirtioNetHeader? = nil, interrupt: Interrupt = .whenWanted
  ) -> Bool {
    let pieces = pieces ?? [frame.count]
    let header = header ?? VirtioNetHeader(numBuffers: UInt16(truncatingIfNeeded: pieces.count))
    guard let elements = fill(frame, pieces: pieces, header: header) else { return false }
    receive.show(elements)
    raise(receive, interrupt)
    return true
  }

  /// Writes header and frame into the next receive buffers and returns the used elements that an honest device would show.
  public func fill(
    _ frame: [UInt8], pieces: [Int], header: VirtioNetHeader
  ) -> [(id: UInt32, length: UInt32)]? {
    guard receive.held.count >= pieces.count else { return nil }
    var elements: [(id: UInt32, length: UInt32)] = []
    var position = 0
    for (number, piece) in pieces.enumerated() {
      guard let head = receive.take(), let buffer = receive.chain(head).first else { return nil }
      var bytes = number == 0 ? Self.bytes(of: header) : []
      bytes += frame[position..<min(position + piece, frame.count)]
      position += piece
      guard receive.ring.write(bytes, at: buffer.address) else { return nil }
      elements.append((UInt32(head), UInt32(bytes.count)))
    }
    return elements
  }

  private static func bytes(of header: VirtioNetHeader) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: VirtioNetHeader.size)
    unsafe bytes.withUnsafeMutableBytes { place in
      guard let base = place.baseAddress else { return }
      unsafe header.store(to: base)
    }
    return bytes
  }

  /// Becomes a loopback: each frame that is transmitted comes back in a receive buffer, and is then released.
  public func loopBack() {
    while let next = transmit.held.first {
      let bytes = transmit.chain(next).flatMap { transmit.ring.bytes($0) }
      guard bytes.count >= VirtioNetHeader.size else { return }
      guard deliver(Array(bytes[VirtioNetHeader.size...])) else { return }
      release()
    }
    transmit.armKicks()
    receive.armKicks()
  }
}

// MARK: - Doorbells

extension LyingPair {
  /// The driver has posted receive buffers.
  func kickReceive() {
    receiveKicks += 1
    onKick()
    whenKicked?(self)
  }

  /// The driver has published frames.
  func kickTransmit() {
    transmitKicks += 1
    onKick()
    whenKicked?(self)
  }
}

/// The doorbell of one of a pair's queues.
final class LyingBell: VirtioDoorbell {
  private let isTransmit: Bool
  /// Nil until both queues are there.
  var pair: LyingPair?

  init(isTransmit: Bool) { self.isTransmit = isTransmit }

  func kick() {
    if isTransmit { pair?.kickTransmit() } else { pair?.kickReceive() }
  }
}
