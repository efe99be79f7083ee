internal import LibeventConcurrency
internal import Netdev
internal import Virtio
internal import VirtioDevice
internal import VirtioNet

/// The control virtqueue between a driver and a device of one process: both sides are on the driver's control loop.
final class InProcessControl: @unchecked Sendable {
  // Proof of Sendable: `served` is touched on `loop`, and so is what `bell` reaches; the rest is constant.
  let loop: LoopExecutor
  private let placement: VirtioQueuePlacement
  private let device: VirtioNetDevice
  private let onInterrupt: () -> Void
  private let bell = Bell()
  private var served: ServedControlQueue?

  /// On the control loop.
  init(
    _ placement: VirtioQueuePlacement, device: VirtioNetDevice, loop: LoopExecutor, onInterrupt: @escaping () -> Void
  ) {
    self.placement = placement
    self.device = device
    self.loop = loop
    self.onInterrupt = onInterrupt
  }

  var doorbell: any VirtioDoorbell { bell }

  private final class Bell: VirtioDoorbell {
    var served: ServedControlQueue?
    func kick() { served?.kick() }
  }

  /// Lets the device serve it; the promise is for `loop`.
  func start(sharing memory: AddressPlan, with pairs: [InProcessPair]) -> LoopPromise<NetworkDeviceError?> {
    loop.call(on: loop) { [self] in
      do throws(DeviceError) {
        try serve(memory, pairs)
        return nil
      } catch {
        return NetworkDeviceError(error, "starting the control virtqueue of \(device.backend.description)")
      }
    }
  }

  private func serve(_ memory: AddressPlan, _ pairs: [InProcessPair]) throws(DeviceError) {
    guard served == nil else { return }
    let map: GuestMemory
    do throws(GuestMemoryError) { map = try memory.guestMemory() } catch { throw .memory(error) }
    let areas = try placement.areas(in: map)
    do throws(RingError) {
      let made = try ServedControlQueue(
        loop: loop, areas: areas, memory: map, features: placement.features, line: InlineLine(onInterrupt),
        onFailure: { [device] in device.requireReset() }
      ) { [weak self] command, answer in
        guard let self else { return answer(false) }
        self.perform(command, pairs, answer)
      }
      served = made
      bell.served = made
      made.kick()
    } catch {
      throw .ring(error)
    }
  }

  /// The device model first, then its engines, all at the same time: it is done when each of them knows.
  private func perform(_ command: NetControlCommand?, _ pairs: [InProcessPair], _ answer: @escaping (Bool) -> Void) {
    guard let command else { return answer(false) }
    if case .queuePairs(let count) = command, Int(count) > pairs.count { return answer(false) }
    guard device.perform(command) else { return answer(false) }
    if case .announced = command { return answer(true) }
    let countdown = Countdown(pairs.count, answer)
    for pair in pairs { pair.update(from: loop) { countdown.note() } }
  }

  /// Counts who has still to answer. On the control loop.
  private final class Countdown: @unchecked Sendable {
    // Proof of Sendable: touched on the control loop only.
    private var left: Int
    private let answer: (Bool) -> Void
    init(_ count: Int, _ answer: @escaping (Bool) -> Void) {
      left = count
      self.answer = answer
    }
    func note() {
      left -= 1
      if left == 0 { answer(true) }
    }
  }

  /// When the promise is kept, the device touches nothing of the driver's any more.
  func stop() -> LoopPromise<Void> {
    loop.call(on: loop) { [self] in
      served?.stop()
      bell.served = nil
      served = nil
    }
  }
}
