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
///
/// The descriptor is watched for frames only while they can be read: a level-triggered descriptor that nobody can read from
/// would keep the loop awake. Without buffers the frames wait in the kernel's queue and the receive ring is asked for a kick;
/// after a refusal a pause goes by. Idle, the port does nothing at all. The first pair's port also watches what becomes of the
/// interface.
@safe final class TapPort: BackendPort {
  let queue: TapQueue
  let number: Int
  /// One limit for both ways.
  private let limit: FrameLimit
  let observer: (any FrameObserver)?
  /// What this port watches beside its queue; nil for all ports but one.
  private let watched: Watched?

  /// An interface of which so many queues are ours, and where the kernel tells of it, if it does.
  struct Watched {
    let queues: Int
    let link: (socket: LinkSocket, index: CInt)?
    /// Of the watch's loop.
    let reports: LoopReports
  }

  // Owned by this port, freed in deinit; touched on the loop.
  /// What the kernel is given: the private header, the driver's buffers, and a byte behind them.
  let vector: UnsafeMutablePointer<iovec>
  /// 12 bytes of header for each direction, then the byte that shows that a frame was longer than its room.
  let scratch: UnsafeMutableRawPointer
  static let vectorCapacity = 1024  // IOV_MAX

  private var bell: ServiceBell?
  private var link: TapWatch?
  private var reading: ReadReadiness?
  private var writing: WriteReadiness?
  /// As the driver has it.
  private var isEnabled = true
  /// A question about the interface's headers is on its way.
  private var isAsking = false
  /// The kernel has said that the interface is down.
  private var isDown = false
  /// No frame passes any more.
  private var isLost = false

  init(queue: TapQueue, number: Int, mtu: Int, watching watched: Watched?, observer: (any FrameObserver)?) {
    self.queue = queue
    self.number = number
    self.observer = observer
    limit = FrameLimit(mtu: mtu)
    self.watched = watched
    unsafe vector = .allocate(capacity: Self.vectorCapacity)
    unsafe scratch = .allocate(byteCount: 64, alignment: 16)
    unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
    markHeader()
  }

  deinit {
    unsafe vector.deallocate()
    unsafe scratch.deallocate()
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
      attach()
    }
    guard let watched else { return }
    // Without a thread for it, frames tell what becomes of the interface.
    link = try? TapWatch(
      queue: queue, link: watched.link, queues: watched.queues, mtu: limit.untagged - EthernetHeader.length,
      portLoop: bell.loop, reports: watched.reports
    ) { [weak self] in self?.note($0) }
  }

  private func note(_ event: PortEvent) {
    if case .lost(let error) = event { end(error) } else { bell?.report(event) }
  }

  func setEnabled(_ enabled: Bool) {
    isEnabled = enabled
    guard !isLost else { return }
    guard !enabled else { return attach() }
    reading?.enable(false)
    writing?.unblock()
    elsewhere { queue throws(BackendError) in
      try queue.setAttached(false)
    } then: { _, _ in
    }
  }

  /// Reads again when the kernel steers flows to the queue.
  private func attach() {
    elsewhere { queue throws(BackendError) in
      try queue.attach()
    } then: { port, _ in
      port.reading?.enable(port.isEnabled)
    }
  }

  /// A port on its way to elsewhere and back.
  private struct Reference: @unchecked Sendable {
    // Proof of Sendable: the port is reached on its loop only.
    weak let port: TapPort?
  }

  /// Has the queue asked or changed where that may block, behind what was asked before. What is thrown ends the port; what is
  /// found comes back to the loop, unless the port is closed or lost by then.
  private func elsewhere<Answer: Sendable>(
    _ call: @escaping @Sendable (TapQueue) throws(BackendError) -> Answer,
    then use: @escaping @Sendable (TapPort, Answer) -> Void
  ) {
    guard let loop = bell?.loop else { return }
    let (queue, reference) = (queue, Reference(port: self))
    queue.calls.start {
      let result = Result { () throws(BackendError) in try call(queue) }
      loop.execute {
        guard let port = reference.port, port.bell != nil, !port.isLost else { return }
        switch result {
        case .success(let answer): use(port, answer)
        case .failure(let error): port.end(error)
        }
      }
    }
  }

  func close() {
    guard bell != nil else { return }
    stopWatching()
    bell = nil
    // Of an interface that is gone there is nothing to detach from, and one with a single queue steers nothing.
    if queue.isMultiQueue { queue.calls.start { [queue] in try? queue.setAttached(false) } }
  }

  /// No frame passes any more: what the driver sends is dropped, and the device is told why.
  private func end(_ error: BackendError) {
    guard !isLost else { return }
    isLost = true
    stopWatching()
    bell?.report(.lost(error))
  }

  private func stopWatching() {
    reading?.cancel()
    writing?.cancel()
    link?.close()
    reading = nil
    writing = nil
    link = nil
  }

  // MARK: Service

  func serve<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard !isLost else { return rings.discardTransmit(budget: budget, .linkDown) ? .moreWork : [] }
    return transmit(&rings, budget: budget).union(receive(&rings, budget: budget))
  }

  private func transmit<Ring: DeviceRing & ~Copyable>(_ rings: inout EngineRings<Ring>, budget: Int) -> ServeResult {
    guard let writing, !writing.isBlocked else { return .transmitBlocked }
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
      if refused(TapRefusal(writing: error), error, chain, &rings) { return isLost ? [] : .transmitBlocked }
    }
    return rings.hasMoreFrames ? .moreWork : []
  }

  /// Acts on a frame that was not written. True when no other one need be tried now.
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
    rings.beginReceive()
    let longest = VirtioNetHeader.size + limit.longest
    var done = 0
    while done < budget {
      let room = rings.takeBuffers(for: longest)
      guard room > 0 else {
        reading.waitForBuffers()
        #if Testing
        if unsafe netdev_fault_is_planted("forgotten-tap-buffers") { return [] }
        #endif
        return rings.receive.isBroken ? [] : .needsReceiveBuffers
      }
      let offered = fillVector(from: &rings)
      let count = unsafe netdev_tap_read(queue.descriptor, vector, CInt(offered.places))
      guard count >= 0 else {
        stopReading(CInt(truncatingIfNeeded: -count), &rings)
        return []
      }
      done += 1
      reading.succeeded()
      if let reason = objection(toFrameOf: count, room: offered.room, longest, &rings) {
        rings.countDrop(.received, reason)
        continue
      }
      if let observer { report(&rings, length: count - VirtioNetHeader.size, to: observer) }
      rings.finishReceive(length: count)
    }
    return .moreWork
  }

  /// The kernel gave no frame: what to wait for.
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

  /// Why a frame that was read into the buffers in hand is not handed on; nil when it is.
  @inline(__always)
  private func objection<Ring: DeviceRing & ~Copyable>(
    toFrameOf count: Int, room: Int, _ longest: Int, _ rings: inout EngineRings<Ring>
  ) -> DropReason? {
    let length = count - VirtioNetHeader.size
    if length >= EthernetHeader.length, length <= limit.untagged, count <= room, isHeaderPlain { return nil }
    return objectionInFull(toFrameOf: count, room: room, longest, &rings)
  }

  @inline(never)
  private func objectionInFull<Ring: DeviceRing & ~Copyable>(
    toFrameOf count: Int, room: Int, _ longest: Int, _ rings: inout EngineRings<Ring>
  ) -> DropReason? {
    if !isHeaderPlain {
      // Headers and offloads belong to the interface, not to one queue: another process has a hand in it.
      let wasMoved = !isHeaderMarked
      markHeader()
      askAboutHeaders()
      return wasMoved ? .malformedFrame : .offloadNotNegotiated
    }
    guard count <= room else {
      return room >= longest ? .tooLong : rings.lack(of: room)
    }
    let length = count - VirtioNetHeader.size
    guard length >= EthernetHeader.length else { return .malformedFrame }
    return length <= limit.untagged || admits(&rings, length) ? nil : .tooLong
  }

  /// Ends the port if the interface is not as it was asked for. Frames that come before the answer are judged each by itself.
  private func askAboutHeaders() {
    guard !isAsking else { return }
    isAsking = true
    elsewhere { queue throws(BackendError) in
      queue.objection()
    } then: { port, objection in
      port.isAsking = false
      if let objection { port.end(objection) }
    }
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
