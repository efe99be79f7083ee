internal import CNetdevSystem
internal import LibeventConcurrency

// When a port reads and writes its descriptor: as the descriptor says, but never again at once after it could not be used.

/// Whether there may be something to read. On the loop.
///
/// The descriptor is level-triggered: it is watched only while a read is what would follow. Without buffers, after a refusal,
/// and when it keeps saying that it is ready and is not, it is left alone.
final class ReadReadiness {
  private let source: LoopSource
  private let pause: RetryPause
  private let state: State
  private var isWatching = false
  private var vainWakes = VainWakes()

  /// What the handlers write to: they do not keep the readiness.
  private final class State { var mayRead = false }

  /// Times in a row that a read may be refused before that counts as what it will always be.
  private static let patience = 16

  init(descriptor: CInt, bell: ServiceBell) throws(LoopError) {
    let state = State()
    self.state = state
    let ready = {
      state.mayRead = true
      bell.ring()
    }
    source = try bell.loop.makeSource(descriptor: descriptor, readiness: .readable, handler: ready)
    pause = try RetryPause(loop: bell.loop, onEnd: ready)
  }

  /// Whether to read: there may be something.
  var mayRead: Bool { state.mayRead }

  /// Begins to read, or stops.
  func enable(_ enabled: Bool) {
    state.mayRead = enabled
    watch(enabled)
  }

  /// There is nowhere to read to: whoever brings buffers has the port served.
  func waitForBuffers() { watch(false) }

  /// A read went well.
  @inline(__always) func succeeded() {
    vainWakes.succeeded()
    if pause.refusals > 0 { pause.succeeded() }
  }

  /// Nothing is left to read.
  func ranDry() {
    state.mayRead = false
    vainWakes.note()
    guard !vainWakes.areTooMany else { return beginPause(doubled: VainWakes.doublings) }
    pause.succeeded()
    watch(true)
  }

  /// A read was refused: it is tried again after a pause.
  ///
  /// - Parameter passes: whether it is known that this goes by, however long it takes.
  /// - Returns: false when it has been refused so often that it will not go by.
  func refused(passes: Bool) -> Bool {
    state.mayRead = false
    guard passes || pause.refusals < Self.patience else { return false }
    beginPause()
    return true
  }

  /// Ends it. On the loop, before the descriptor is closed.
  func cancel() {
    state.mayRead = false
    source.cancel()
    pause.cancel()
  }

  private func beginPause(doubled bound: Int = RetryPause.longest) {
    watch(false)
    pause.begin(doubled: bound)
  }

  private func watch(_ watching: Bool) {
    guard watching != isWatching else { return }
    isWatching = watching
    if watching { source.resume() } else { source.suspend() }
  }
}

/// Whether writing is worth trying. On the loop.
final class WriteReadiness {
  private let source: LoopSource
  private let pause: RetryPause
  private let state: State

  /// What the handlers write to: they do not keep the readiness.
  private final class State {
    var isBlocked = false
    var onWritable: (() -> Void)?
    weak var source: LoopSource?
  }

  init(descriptor: CInt, bell: ServiceBell) throws(LoopError) {
    let state = State()
    self.state = state
    source = try bell.loop.makeSource(descriptor: descriptor, readiness: .writable) {
      state.source?.suspend()
      state.isBlocked = false
      let onWritable = state.onWritable
      state.onWritable = nil
      onWritable?()
      bell.ring()
    }
    pause = try RetryPause(loop: bell.loop) {
      state.isBlocked = false
      bell.ring()
    }
    state.source = source
  }

  /// Nothing is taken for now.
  var isBlocked: Bool { state.isBlocked }

  /// A write went well.
  @inline(__always) func succeeded() { if pause.refusals > 0 { pause.succeeded() } }

  /// There was no room: writing is tried again when the descriptor says that there is. When it said so and was wrong, a pause
  /// goes by first.
  func wasFull() {
    guard pause.refusals == 0 else { return beginPause() }
    pause.noteRefusal()
    state.isBlocked = true
    source.resume()
  }

  /// A write was refused: it is tried again after a pause.
  func beginPause() {
    state.isBlocked = true
    #if Testing
    if unsafe netdev_fault_is_planted("endless-pause") { return }
    #endif
    pause.begin()
  }

  /// Calls once when the descriptor is writable; until then writing goes on.
  func whenWritable(_ body: @escaping () -> Void) {
    state.onWritable = body
    source.resume()
  }

  /// Nothing waits for room any more.
  func unblock() {
    state.isBlocked = false
    if state.onWritable == nil { source.suspend() }
  }

  /// Ends it. On the loop, before the descriptor is closed.
  func cancel() {
    source.cancel()
    pause.cancel()
  }
}
