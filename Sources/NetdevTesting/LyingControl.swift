internal import LibeventConcurrency
internal import Netdev
public import Virtio
internal import VirtioNet

/// The control virtqueue of a `LyingDevice`: reached by `LyingDevice.performControl`, on the control loop.
public final class LyingControl {
  /// What the device does with a command.
  public enum Answer: Sendable, Hashable {
    /// Done.
    case acknowledge
    /// This byte, whatever it means.
    case byte(UInt8)
    /// Nothing, until `answerLate`.
    case silence
    /// Done, and says that it has written so many bytes.
    case length(UInt32)
    /// A chain that was never there.
    case stranger
  }

  /// The driver's ring.
  public let queue: LyingQueue
  /// What was negotiated.
  public let features: FeatureSet
  /// What it does with the next commands.
  public var answer = Answer.acknowledge
  /// The bytes of each command that it was given, in order.
  public private(set) var commands: [[UInt8]] = []
  /// Called for each command, before it is answered.
  public var whenCommanded: ((LyingControl) -> Void)?
  /// Commands at once that it has seen at most.
  public private(set) var mostAtOnce = 0
  private let onInterrupt: () -> Void
  private let onFailure: (NetworkDeviceError) -> Void
  let bell = Bell()

  final class Bell: VirtioDoorbell {
    weak var control: LyingControl?
    func kick() { control?.kicked() }
  }

  init(
    _ queue: LyingQueue, features: FeatureSet, onInterrupt: @escaping () -> Void,
    onFailure: @escaping (NetworkDeviceError) -> Void
  ) {
    self.queue = queue
    self.features = features
    self.onInterrupt = onInterrupt
    self.onFailure = onFailure
    bell.control = self
  }

  /// The commands as their classes and numbers say; nil for bytes that are none.
  public var understood: [NetControlCommand?] {
    commands.map { bytes in
      NetControlCommand(length: bytes.count) { position, count in Array(bytes[position..<position + count]) }
    }
  }

  private var seen = 0

  private func kicked() {
    let held = queue.held
    mostAtOnce = max(mostAtOnce, held.count)
    while seen < queue.held.count {
      let chain = queue.chain(queue.held[seen])
      seen += 1
      commands.append(chain.filter { !$0.isWritable }.flatMap { queue.ring.bytes($0) })
      whenCommanded?(self)
      if answer != .silence { answerFirst(answer) }
    }
    queue.armKicks()
  }

  /// Answers the commands that were not answered, oldest first.
  public func answerLate(_ answer: Answer = .acknowledge) { while answerFirst(answer) {} }

  @discardableResult private func answerFirst(_ answer: Answer) -> Bool {
    guard let head = queue.take() else { return false }
    seen -= 1
    let room = queue.chain(head).first { $0.isWritable }
    if let room, case .byte(let byte) = answer { queue.ring.write([byte], at: room.address) }
    if let room, answer == .acknowledge { queue.ring.write([NetControlCommand.ok], at: room.address) }
    switch answer {
    case .length(let length):
      if let room { queue.ring.write([NetControlCommand.ok], at: room.address) }
      queue.show([(UInt32(head), length)])
    case .stranger: queue.show([(UInt32(head) ^ 1, 1)])
    case .acknowledge, .byte, .silence: queue.show([(UInt32(head), 1)])
    }
    if queue.wantsInterrupt() { onInterrupt() }
    return true
  }

  /// Interrupts, whether or not there is a reason.
  public func interrupt() { onInterrupt() }

  /// The device sets NEEDS_RESET.
  public func needReset() {
    onFailure(NetworkDeviceError(.broken, "the device", offered: "NEEDS_RESET", advice: "close it and open it again"))
  }
}
