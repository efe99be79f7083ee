package import LibeventConcurrency
package import Virtio

/// A device's control virtqueue while it is served, wherever its driver is (VIRTIO 1.4 §5.1.9.5). Made, used and released on its
/// loop.
///
/// Commands are taken one after the other: the next is looked at when the one before is answered, and each is answered, also one
/// that makes no sense. What is done about it is the transport's business, because engines live on other loops.
package final class ServedControlQueue {
  /// What to do about a command: nil stands for bytes that are none. Calls back on the loop, once, with whether it is done.
  package typealias Handler = (_ command: NetControlCommand?, _ answer: @escaping (Bool) -> Void) -> Void

  private let loop: LoopExecutor
  private let ring: any ControlRing
  private let line: any InterruptLine
  private let handler: Handler
  private let onFailure: () -> Void
  private var isStopped = false
  /// A command is being done.
  private var isBusy = false
  private var isServing = false
  /// Commands before other work of the loop has its turn.
  private static let budget = 16

  /// Checks and activates the ring, in the format that was negotiated. On the loop.
  ///
  /// - Parameters:
  ///   - areas: the ring.
  ///   - memory: the driver's memory. The mappings outlive `stop`.
  ///   - features: what was negotiated.
  ///   - line: raised when a command was answered.
  ///   - onFailure: called on the loop when the driver breaks the ring; the device then needs a reset.
  ///   - handler: does what a command asks for.
  /// - Throws: the rule of configuration that the ring breaks.
  package init(
    loop: LoopExecutor, areas: RingAreas, memory: consuming GuestMemory, features: FeatureSet, line: any InterruptLine,
    onFailure: @escaping () -> Void, handler: @escaping Handler
  ) throws(RingError) {
    switch RingFormat(features) {
    case .split: ring = try HeldControlRing<SplitDeviceRing>(areas, memory, features)
    case .packed: ring = try HeldControlRing<PackedDeviceRing>(areas, memory, features)
    }
    self.loop = loop
    self.line = line
    self.onFailure = onFailure
    self.handler = handler
  }

  /// The driver has put a command on the ring, or may have. On the loop; it is looked at in the next turn.
  package func kick() {
    loop.execute { [reference = Reference(queue: self)] in reference.queue?.serve() }
  }

  private struct Reference: @unchecked Sendable {
    // Proof of Sendable: it is used on the queue's loop only.
    weak let queue: ServedControlQueue?
  }

  /// Stops serving: afterwards nothing in the driver's memory is read or written any more. On the loop; idempotent.
  package func stop() { isStopped = true }

  private func serve() {
    guard !isServing else { return }
    isServing = true
    defer { isServing = false }
    var left = Self.budget
    while !isStopped, !isBusy {
      guard left > 0 else { return kick() }
      left -= 1
      switch ring.next() {
      case .none: return
      case .command(let command):
        isBusy = true
        var isAnswered = false
        handler(command) { [weak self] isDone in
          guard !isAnswered else { return }
          isAnswered = true
          self?.answer(isDone)
        }
      case .failed:
        isStopped = true
        return onFailure()
      }
    }
  }

  private func answer(_ isDone: Bool) {
    guard !isStopped, isBusy else { return }
    isBusy = false
    if ring.answer(isDone ? NetControlCommand.ok : NetControlCommand.refused) { line.raise() }
    if !isServing { kick() }
  }
}

/// The ring of a control virtqueue, whatever its format.
protocol ControlRing: AnyObject {
  /// The next command, which is then to be answered. Without one a kick has been asked for.
  func next() -> NextCommand
  /// Answers the last command. True when the driver wants an interrupt.
  func answer(_ acknowledgement: UInt8) -> Bool
}

/// What is on a control virtqueue.
enum NextCommand {
  case none
  /// Nil for bytes that are no command.
  case command(NetControlCommand?)
  /// The ring is broken.
  case failed
}

/// The ring of one format.
final class HeldControlRing<Ring: DeviceRing & ~Copyable>: ControlRing {
  private var ring: Ring
  private let memory: GuestMemory
  /// The command that is being done.
  private var chain: DescriptorChain?

  init(_ areas: RingAreas, _ memory: consuming GuestMemory, _ features: FeatureSet) throws(RingError) {
    var configuration = Ring.Configuration(areas)
    configuration.eventIndex = features.contains(.eventIndex)
    configuration.indirect = features.contains(.indirectDesc)
    configuration.inOrder = features.contains(.inOrder)
    ring = try configuration.activate()
    self.memory = memory
  }

  func next() -> NextCommand {
    while true {
      ring.refresh()
      if let found = ring.take(in: memory) {
        chain = found
        return .command(Self.command(in: found))
      }
      // Those that broke a rule have been returned.
      ring.publishUsed()
      if ring.isBroken { return .failed }
      if !ring.armKick() { return .none }
    }
  }

  private static func command(in chain: DescriptorChain) -> NetControlCommand? {
    NetControlCommand(length: chain.readableLength) { position, count in
      var bytes = [UInt8](repeating: 0, count: count)
      let done = unsafe bytes.withUnsafeMutableBytes { unsafe chain.copyBytes(from: position, into: $0) }
      return done == count ? bytes : []
    }
  }

  func answer(_ acknowledgement: UInt8) -> Bool {
    guard let chain else { return false }
    self.chain = nil
    let written = unsafe withUnsafeBytes(of: acknowledgement) { unsafe chain.write($0, at: 0) }
    ring.pushUsed(chain, written: UInt32(truncatingIfNeeded: written))
    ring.publishUsed()
    return ring.needsCall()
  }
}
