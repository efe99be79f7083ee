import Netdev
import NetdevTesting
import Virtio
import VirtioNet

/// What is behind a device: the script reaches the rings of its queue pairs.
protocol FarSide: AnyObject, Sendable {
  func perform<Result: Sendable>(pair index: Int, _ body: @Sendable (LyingPair) -> Result) async -> Result?
}

extension LyingDevice: FarSide {}
extension VhostUserPeer: FarSide {}

/// The other side of one queue pair. It works when it is rung for, and never looks by itself: a doorbell that is missing is missed.
final class Peer: @unchecked Sendable {
  // Proof of Sendable: the tasks of one world.
  private let side: any FarSide
  let index: Int
  private let world: SimulatedWorld
  private let plan: Plan
  private var isWorking = true
  private let bell = SimulatedBell()
  private let room = SimulatedBell()
  /// The pair that it serves; none while it is dead. Held, as another one could have the place in memory of one that has gone.
  private var pair: LyingPair?
  /// How many of the frames held have been looked at.
  private var taken = 0
  /// The newest frame of each flow in this life.
  private var newest: [Int: Int] = [:]
  /// What was given back, in any life, and what the program was told is lost.
  private var released: Set<Frame> = []
  /// Called each time before it looks at what there is, and after it has delivered something.
  var meanwhile: (() -> Void)?

  init(_ world: SimulatedWorld, _ plan: Plan, at side: any FarSide, pair index: Int = 0) {
    self.world = world
    self.plan = plan
    self.side = side
    self.index = index
  }

  /// Lives: listens to the doorbells of the pair that there is now. On its loop.
  func live(_ pair: LyingPair) {
    // Whoever closed the device was quicker.
    guard !pair.isOver else { return }
    world.note("the peer lives")
    self.pair = pair
    taken = 0
    newest = [:]
    pair.whenKicked = { [weak self] pair in if self?.pair === pair { self?.ring() } }
    pair.transmit.armKicks()
    pair.receive.armKicks()
    ring()
  }

  /// A send says that it was given back.
  func expectReleased(_ frame: Frame) {
    if !released.contains(frame) { world.find("the send of \(frame.name) has ended, and the device still has it") }
  }

  /// The program knows that it is lost.
  func noteLost(_ frame: Frame) { released.insert(frame) }

  private func ring() {
    bell.ring()
    room.ring()
  }

  /// The device is gone: what it still has of the rings it does not touch any more.
  func die() {
    pair = nil
    world.note("the peer dies")
  }

  func end() {
    isWorking = false
    ring()
  }

  /// Delivers frames of a flow, each as soon as there is a buffer for it.
  func deliver(_ count: Int, flow: Int) async {
    var number = 0
    while number < count, isWorking {
      let frame = Frame(flow: flow, number: number)
      let isDone = await side.perform(pair: index) { [self] pair in
        guard pair === self.pair, !pair.isOver else { return false }
        pair.receive.armKicks()
        return deliver(frame, to: pair)
      }
      if isDone == true { number += 1 } else { await room.wait() }
      await plan.pause(world)
    }
  }

  /// In one buffer, or in several where that was agreed.
  private func deliver(_ frame: Frame, to pair: LyingPair) -> Bool {
    guard pair.deliver(frame.bytes, pieces: world.pieces(of: frame, for: pair)) else { return false }
    meanwhile?()
    return true
  }

  /// Serves until `end`.
  func work() async {
    while isWorking {
      await bell.wait()
      while isWorking {
        await plan.pause(world, microseconds: 2000)
        let isDone =
          await side.perform(pair: index) { [self] in $0 === pair && !$0.isOver ? serve($0) : true } ?? true
        if isDone { break }
      }
    }
  }

  /// Some of what there is, in any order; true when nothing is left.
  private func serve(_ pair: LyingPair) -> Bool {
    meanwhile?()
    note(pair)
    for _ in 0..<world.choose(below: taken + 1) {
      // One that has been looked at: others may come meanwhile.
      let place = world.choose(below: taken)
      if let frame = pair.transmitted(at: place).flatMap({ Frame($0.frame) }) {
        world.note("the peer releases \(frame.name)")
        released.insert(frame)
      }
      pair.release(at: place, interrupt: .whenWanted)
      taken -= 1
    }
    if world.chance(oneIn: 16) { pair.interrupt() }
    guard pair.transmit.held.isEmpty else { return false }
    pair.transmit.armKicks()
    pair.receive.armKicks()
    return true
  }

  /// The frames that have come to the ring since it was looked at last, in the order in which they were published.
  private func note(_ pair: LyingPair) {
    for position in min(taken, pair.transmit.held.count)..<pair.transmit.held.count {
      guard let frame = pair.transmitted(at: position).flatMap({ Frame($0.frame) }) else {
        world.find("the peer sees other bytes than were sent")
        continue
      }
      order(frame)
    }
    taken = pair.transmit.held.count
  }

  /// In one life of the device the frames of a flow come in order, each once, and none is left out that was not given back in an
  /// earlier life.
  private func order(_ frame: Frame) {
    world.note("the peer sees \(frame.name)")
    let before = newest[frame.flow] ?? -1
    if frame.number <= before { return world.find("\(frame.name) follows \(before)") }
    for missing in before + 1..<frame.number where !released.contains(Frame(flow: frame.flow, number: missing)) {
      world.find("\(frame.name) follows \(before), and \(missing) was not given back")
    }
    newest[frame.flow] = frame.number
  }
}

extension SimulatedWorld {
  /// How many bytes of a frame go to each buffer.
  func pieces(of frame: Frame, for pair: LyingPair) -> [Int] {
    var left = frame.bytes.count
    var pieces: [Int] = []
    while pair.features.contains(.mrgRxbuf), pieces.count + 1 < min(4, pair.receive.held.count), chance(oneIn: 3) {
      pieces.append(1 + choose(below: left / 2))
      left -= pieces[pieces.count - 1]
    }
    return pieces + [left]
  }
}
