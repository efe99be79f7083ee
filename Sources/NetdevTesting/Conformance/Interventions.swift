internal import Netdev
internal import Synchronization

/// What a check does to the traffic on its way to the driver: situations that a driver must cope with and that a program
/// alone cannot bring about at will.
final class Interventions: Sendable {
  /// A change of one frame that is on its way to the driver, which knows it by its length.
  struct Alteration: Sendable {
    enum Kind: Sendable {
      /// Makes it as long as this: as if a device had received it that takes longer ones.
      case lengthen(to: Int)
      /// Puts its second half into another buffer: as if it had been received so.
      case split
    }
    var length: Int
    var kind: Kind
  }

  private struct State {
    var isJammed = false
    var alteration: Alteration?
    var alterations = 0
    var beforeArm: (@Sendable () -> Void)?
    var breakage: NetworkDeviceError?
    var hasSpare = false
  }

  /// One buffer is kept back from reception, for the second half of a frame.
  let keepsSpare: Bool
  private let state = Mutex(State())

  init(keepsSpare: Bool) { self.keepsSpare = keepsSpare }

  // MARK: The check's side

  /// The driver is offered no frames: as if the ring were full.
  func jam(_ isJammed: Bool) { state.withLock { $0.isJammed = isJammed } }

  /// The next frame of this length is altered, once.
  func alter(_ alteration: Alteration) { state.withLock { $0.alteration = alteration } }

  /// Frames altered so far.
  var alterations: Int { state.withLock { $0.alterations } }

  /// There is a buffer for the second half of a frame.
  var hasSpare: Bool { state.withLock { $0.hasSpare } }

  /// Called once, on the loop, when the queue is about to arm.
  func beforeArm(_ body: @escaping @Sendable () -> Void) { state.withLock { $0.beforeArm = body } }

  /// The next look at the receive ring finds this, once.
  func breakQueue(_ error: NetworkDeviceError) { state.withLock { $0.breakage = error } }

  // MARK: The queue's side

  var isJammed: Bool { state.withLock { $0.isJammed } }
  func noteSpare(_ hasSpare: Bool) { state.withLock { $0.hasSpare = hasSpare } }

  func takeAlteration(forLength length: Int) -> Alteration.Kind? {
    state.withLock { state in
      guard let alteration = state.alteration, alteration.length == length else { return nil }
      state.alteration = nil
      state.alterations += 1
      return alteration.kind
    }
  }

  func takeBeforeArm() -> (@Sendable () -> Void)? { state.withLock { $0.beforeArm.take() } }
  func takeBreakage() -> NetworkDeviceError? { state.withLock { $0.breakage.take() } }
}
