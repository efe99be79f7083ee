internal import CNetdevSystem
internal import Glibc
internal import HostInterfaces
internal import LibeventConcurrency
internal import Virtio

/// A queue of a TAP or TUN interface while a port serves it: when it is read and written, what a refusal means, and what becomes of
/// the interface.
///
/// The descriptor is watched for frames only while they can be read: a level-triggered descriptor that nobody can read from
/// would keep the loop awake. Without buffers the frames wait in the kernel's queue and the receive ring is asked for a kick;
/// after a refusal a pause goes by. Idle, it does nothing at all. Of an interface the first pair's queue also watches what becomes
/// of it.
final class ServedTapQueue {
  let queue: TapQueue
  private let number: Int
  private let mtu: Int
  /// What is watched beside the queue; nil for all but one.
  private let watched: Watched?

  /// An interface of which so many queues are ours, and where the kernel tells of it, if it does.
  struct Watched {
    let queues: Int
    let link: (socket: LinkSocket, index: CInt)?
    /// Of the watch's loop.
    let reports: LoopReports
  }

  /// When the interface's headers are asked about.
  private struct Questions {
    /// A question is on its way, or the pause after one.
    var isBusy = false
    /// There was reason for another one meanwhile.
    var isDue = false
    /// Others hold queues: there always is.
    var isShared = false
    /// The pause; without one the next question waits for nothing but the answer.
    var pause: LoopTimer?
  }

  // Touched on the port's loop.
  private var bell: ServiceBell?
  private var link: TapWatch?
  private var reading: ReadReadiness?
  private(set) var writing: WriteReadiness?
  /// As the driver has it.
  private var isEnabled = true
  /// What the kernel shall hand over.
  private var kernelFilter = TapFilter.everything
  private var questions = Questions()
  /// The kernel has said that the interface is down.
  private var isDown = false
  /// No frame passes any more.
  private(set) var isLost = false

  init(_ queue: TapQueue, number: Int, mtu: Int, watching watched: Watched?) {
    self.queue = queue
    self.number = number
    self.mtu = mtu
    self.watched = watched
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
    // Of a pair that is not in use yet a prepared queue keeps what the kernel steers to it until it is.
    if queue.takePrepared() {
      reading?.enable(isEnabled)
    } else if isEnabled {
      attach()
    }
    if kernelFilter != .everything { setKernelFilter() }
    guard let watched else { return }
    // Without a thread for it, frames tell what becomes of the interface.
    link = try? TapWatch(
      queue: queue, link: watched.link, queues: watched.queues, mtu: mtu, portLoop: bell.loop, reports: watched.reports
    ) { [weak self] in self?.note($0) }
  }

  private func note(_ event: PortEvent) {
    switch event {
    case .lost(let error): return end(error)
    case .shared:
      // No frame need tell of headers that have become longer.
      questions.isShared = true
      askAboutHeaders()
    default: break
    }
    bell?.report(event)
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

  /// What the driver wants, of which the kernel can tell most before a frame is copied. One for all queues of an interface: the first
  /// pair's port sees to it.
  func setReceiveFilter(_ filter: ReceiveFilter) {
    guard number == 0 else { return }
    let (old, new) = (kernelFilter, TapFilter(filter))
    kernelFilter = new
    if old != new { setKernelFilter() }
  }

  private func setKernelFilter() {
    let filter = kernelFilter
    elsewhere { queue throws(BackendError) in
      filter.apply(to: queue.descriptor)
    } then: { _, _ in
    }
  }

  /// Reads again when the kernel steers flows to the queue.
  private func attach() {
    elsewhere { queue throws(BackendError) in
      try queue.attach()
    } then: { served, _ in
      served.reading?.enable(served.isEnabled)
    }
  }

  /// Ends the port if the interface is not as it was asked for: headers and offloads belong to it, not to one queue, and another
  /// process may have a hand in it. Frames that come before the answer are judged each by itself.
  ///
  /// Not more than ten times a second, whatever frames come.
  func askAboutHeaders() {
    guard !questions.isBusy else {
      questions.isDue = true
      return
    }
    questions.isBusy = true
    questions.isDue = false
    elsewhere { queue throws(BackendError) in
      queue.objection()
    } then: { served, objection in
      if let objection { served.end(objection) } else { served.pauseQuestions() }
    }
  }

  private func pauseQuestions() {
    if questions.pause == nil {
      questions.pause = try? bell?.loop.makeTimer { [weak self] in self?.goOnAsking() }
    }
    guard let pause = questions.pause else { return questions.isBusy = false }
    pause.schedule(after: questions.isShared ? .seconds(1) : .milliseconds(100))
  }

  private func goOnAsking() {
    questions.isBusy = false
    if questions.isDue || questions.isShared { askAboutHeaders() }
  }

  /// Why a frame is dropped whose header is not plain: it is none, or it asks for an offload.
  @inline(never) func objection(to headers: borrowing TapHeaders) -> DropReason {
    let wasMoved = !headers.isMarked
    headers.mark()
    askAboutHeaders()
    return wasMoved ? .malformedFrame : .offloadNotNegotiated
  }

  /// A served queue on its way to elsewhere and back.
  private struct Reference: @unchecked Sendable {
    // Proof of Sendable: it is reached on its loop only.
    weak let served: ServedTapQueue?
  }

  /// Has the queue asked or changed where that may block, behind what was asked before. What is thrown ends the port; what is
  /// found comes back to the loop, unless the port is closed or lost by then.
  private func elsewhere<Answer: Sendable>(
    _ call: @escaping @Sendable (TapQueue) throws(BackendError) -> Answer,
    then use: @escaping @Sendable (ServedTapQueue, Answer) -> Void
  ) {
    guard let loop = bell?.loop else { return }
    let (queue, reference) = (queue, Reference(served: self))
    queue.calls.start {
      let result = Result { () throws(BackendError) in try call(queue) }
      loop.execute {
        guard let served = reference.served, served.bell != nil, !served.isLost else { return }
        switch result {
        case .success(let answer): use(served, answer)
        case .failure(let error): served.end(error)
        }
      }
    }
  }

  func close() {
    guard bell != nil else { return }
    stopWatching()
    bell = nil
    // The interface may outlive this device, and would keep it.
    if kernelFilter != .everything { queue.calls.start { [queue] in TapFilter.everything.apply(to: queue.descriptor) } }
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
    questions.pause?.cancel()
    questions.pause = nil
    reading = nil
    writing = nil
    link = nil
  }

  // MARK: Transmission

  /// Acts on a frame that was not written. True when no other one need be tried now.
  func refused<Ring: DeviceRing & ~Copyable>(
    _ error: CInt, _ chain: DescriptorChain, _ rings: inout EngineRings<Ring>
  ) -> Bool {
    let refusal = TapRefusal(writing: error)
    // Where its header does not end where it was agreed, a frame is none to the kernel.
    if error == EINVAL { askAboutHeaders() }
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

  // MARK: Reception

  /// Reads up to `budget` frames.
  ///
  /// - Parameters:
  ///   - longest: what the buffers in hand shall hold, the header included.
  ///   - take: reads one frame into the buffers in hand and puts it on the receive ring, or counts why it does not; 0, or the
  ///     error of a read that was refused.
  @inline(__always) func receive<Ring: DeviceRing & ~Copyable>(
    _ rings: inout EngineRings<Ring>, budget: Int, longest: Int, _ take: (inout EngineRings<Ring>) -> CInt
  ) -> ServeResult {
    guard let reading, reading.mayRead else { return [] }
    rings.beginReceive()
    var done = 0
    while done < budget {
      guard rings.takeBuffers(for: longest) > 0 else {
        reading.waitForBuffers()
        #if Testing
        if forgetsBuffers { return [] }
        #endif
        return rings.receive.isBroken ? [] : .needsReceiveBuffers
      }
      let error = take(&rings)
      guard error == 0 else {
        stopReading(error, &rings)
        return []
      }
      done += 1
      reading.succeeded()
    }
    return .moreWork
  }

  #if Testing
  private var forgetsBuffers: Bool {
    switch queue.kind {
    case .tap: unsafe netdev_fault_is_planted("forgotten-tap-buffers")
    case .tun: unsafe netdev_fault_is_planted("forgotten-tun-buffers")
    }
  }
  #endif

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
}
