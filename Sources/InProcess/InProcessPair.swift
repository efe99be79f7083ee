internal import LibeventConcurrency
internal import Netdev
internal import Virtio
internal import VirtioDevice
internal import VirtioNet

/// One pair between driver and device: what serves it on the device's loop, and the bells and lines between the two.
final class InProcessPair: @unchecked Sendable {
  // Proof of Sendable: `queues` is written on the driver's loop before the driver says DRIVER_OK, and read on the device's loop by
  // what that brings about; `served` is touched on the device's loop only, `callSource` on the driver's, each in calls on that loop;
  // everything else is a constant.
  let index: Int
  private let device: VirtioNetDevice
  private let driverLoop: LoopExecutor
  private let engineLoop: LoopExecutor
  /// Nil where both are on one loop.
  private let call: Eventfd?
  private var queues: (receive: Queue?, transmit: Queue?)
  private var served: ServedPair?
  private var callSource: LoopSource?

  /// One of the two virtqueues.
  private struct Queue {
    let placement: VirtioQueuePlacement
    let bell: Bell
    let line: any InterruptLine

    enum Bell {
      case inline(InlineDoorbell)
      case kick(EventfdDoorbell)
    }
  }

  /// On the driver's loop.
  init(
    index: Int, device: VirtioNetDevice, driverLoop: LoopExecutor, engines: InProcessTransport.Placement
  ) throws(NetworkDeviceError) {
    self.index = index
    self.device = device
    self.driverLoop = driverLoop
    switch engines {
    case .inline:
      engineLoop = driverLoop
      call = nil
    case .ownLoop(let cpu):
      let name = "device/\(index)"
      do throws(LoopError) {
        engineLoop = try LoopExecutor(name: name, cpu: cpu, reports: device.loopReports(name))
      } catch {
        throw NetworkDeviceError(.system, "starting the device's loop", offered: "\(error)")
      }
      call = try Eventfd(for: name)
    }
  }

  /// The driver has laid a ring. On the driver's loop.
  func attach(
    _ placement: VirtioQueuePlacement, onInterrupt: @escaping () -> Void
  ) throws(NetworkDeviceError) -> any VirtioDoorbell {
    guard let call else {
      let bell = InlineDoorbell()
      add(Queue(placement: placement, bell: .inline(bell), line: InlineLine(onInterrupt)))
      return bell
    }
    let bell = EventfdDoorbell(try Eventfd(for: engineLoop.name))
    // One call for both queues: the first one's driver hears it.
    if callSource == nil {
      do throws(LoopError) {
        let source = try driverLoop.makeSource(eventfd: call.descriptor, keeping: call, handler: onInterrupt)
        source.resume()
        callSource = source
      } catch {
        throw NetworkDeviceError(.system, "hearing the device's loop", offered: "\(error)")
      }
    }
    add(Queue(placement: placement, bell: .kick(bell), line: EventfdLine(call)))
    return bell
  }

  private func add(_ queue: Queue) {
    if queue.placement.isTransmit { queues.transmit = queue } else { queues.receive = queue }
  }

  /// Lets the device serve both queues, when both are attached; the promise is for `loop`.
  func start(from loop: LoopExecutor, sharing memory: AddressPlan) -> LoopPromise<NetworkDeviceError?> {
    loop.call(on: engineLoop) { [self] in
      do throws(DeviceError) {
        try serve(memory)
        return nil
      } catch {
        return NetworkDeviceError(error, "starting queue pair \(index) of \(device.backend.description)")
      }
    }
  }

  private func serve(_ memory: AddressPlan) throws(DeviceError) {
    guard served == nil, let receive = queues.receive, let transmit = queues.transmit else { return }
    let map: GuestMemory
    do throws(GuestMemoryError) { map = try memory.guestMemory() } catch { throw .memory(error) }
    var kicks: ServedPair.Kicks?
    if case (.kick(let receiveBell), .kick(let transmitBell)) = (receive.bell, transmit.bell) {
      kicks = ServedPair.Kicks(
        receive: receiveBell.descriptor, transmit: transmitBell.descriptor, owner: Both(receiveBell, transmitBell))
    }
    let (receiveAreas, transmitAreas) = (try receive.placement.areas(in: map), try transmit.placement.areas(in: map))
    let made = try ServedPair(
      index, of: device, loop: engineLoop, receive: receiveAreas, transmit: transmitAreas, memory: map, kicks: kicks,
      receiveLine: receive.line, transmitLine: transmit.line)
    try made.start()
    served = made
    connect(made.engine)
  }

  /// Tells the engine what the driver has asked for by the control virtqueue, and calls `done` on the loop `control` when it knows.
  func update(from control: LoopExecutor, _ done: @escaping @Sendable () -> Void) {
    engineLoop.execute { [self] in
      if let engine = served?.engine { device.update(engine, pair: index) }
      control.execute(done)
    }
  }

  /// Doorbells of the same loop ring the engine itself.
  private func connect(_ engine: QueuePairEngine?) {
    for queue in [queues.receive, queues.transmit] {
      if case .inline(let bell) = queue?.bell { bell.connect(engine) }
    }
  }

  /// When the promise is kept, the device touches nothing of the driver's any more.
  func stop(from loop: LoopExecutor) -> LoopPromise<Void> {
    driverLoop.execute { [self] in
      callSource?.cancel()
      callSource = nil
    }
    return loop.call(on: engineLoop) { [self] in
      served?.stop()
      connect(nil)
      served = nil
    }
  }
}

extension VirtioQueuePlacement {
  /// Where the ring lies for a device that looks at the driver's memory by `map`.
  func areas(in map: borrowing GuestMemory) throws(DeviceError) -> RingAreas {
    do throws(RingError) {
      return try RingAreas(
        format, size: size, descriptorAddress: descriptors, driverAddress: driver, deviceAddress: device, memory: map)
    } catch {
      throw .ring(error)
    }
  }
}

/// The doorbell of an engine on the same loop: a function call.
@safe private final class InlineDoorbell: VirtioDoorbell {
  // Proof: the pair keeps the engine, and clears this before it lets go of it. Unmanaged, so that ringing retains nothing.
  private var rung: Unmanaged<QueuePairEngine>?

  var isOnLoop: Bool { true }
  func connect(_ engine: QueuePairEngine?) { unsafe rung = engine.map { unsafe Unmanaged.passUnretained($0) } }
  func kick() { unsafe rung?._withUnsafeGuaranteedRef { $0.kick() } }
}

/// The interrupt of what is served on the same loop.
final class InlineLine: InterruptLine {
  private let onInterrupt: () -> Void
  init(_ onInterrupt: @escaping () -> Void) { self.onInterrupt = onInterrupt }
  func raise() { onInterrupt() }
}

/// The doorbell of an engine on another loop.
private final class EventfdDoorbell: VirtioDoorbell, Sendable {
  private let event: Eventfd
  init(_ event: Eventfd) { self.event = event }
  var descriptor: CInt { event.descriptor }
  func kick() { event.signal() }
}

/// Keeps both doorbells of a pair.
private final class Both: Sendable {
  private let bells: [EventfdDoorbell]
  init(_ bells: EventfdDoorbell...) { self.bells = bells }
}

/// The interrupt of an engine on another loop.
private final class EventfdLine: InterruptLine, Sendable {
  private let event: Eventfd
  init(_ event: Eventfd) { self.event = event }
  func raise() { event.signal() }
}
