internal import CNetdevSystem
internal import LibeventConcurrency
internal import Netdev
internal import Virtio
internal import VirtioDevice
internal import VirtioNet

/// One pair between driver and device: the engine on its loop, and the wires between the two.
final class InProcessPair: @unchecked Sendable {
  // Proof of Sendable: `engine` and `kickSources` are touched on the engine's loop only, `callSource` and `onInterrupt` on the
  // driver's, each in calls on that loop; everything else is a constant.
  let doorbells: any VirtioDoorbells
  private let placement: VirtioPairPlacement
  private let device: VirtioNetDevice
  private let memory: PairMemory
  private let driverLoop: LoopExecutor
  private let engineLoop: LoopExecutor
  private let wires: Wires?
  private let inline: InlineDoorbells?
  private let onInterrupt: () -> Void
  private var engine: QueuePairEngine?
  private var kickSources: [LoopSource] = []
  private var callSource: LoopSource?

  /// On the driver's loop.
  init(
    placement: VirtioPairPlacement, device: VirtioNetDevice, driverLoop: LoopExecutor,
    engines: InProcessTransport.Placement, memory: PairMemory, onInterrupt: @escaping () -> Void
  ) throws(NetworkDeviceError) {
    self.placement = placement
    self.device = device
    self.memory = memory
    self.onInterrupt = onInterrupt
    self.driverLoop = driverLoop
    switch engines {
    case .inline:
      let bells = InlineDoorbells()
      doorbells = bells
      inline = bells
      wires = nil
      engineLoop = driverLoop
    case .ownLoop(let cpu):
      do throws(LoopError) {
        let name = "device/\(placement.index)"
        let loop = try LoopExecutor(name: name, cpu: cpu, reports: device.loopReports(name))
        let wires = try Wires()
        doorbells = wires
        self.wires = wires
        inline = nil
        engineLoop = loop
        let source = try driverLoop.makeSource(eventfd: wires.call, handler: onInterrupt)
        source.resume()
        callSource = source
      } catch {
        throw NetworkDeviceError(.system, "starting the device's loop", offered: "\(error)")
      }
    }
  }

  /// Makes the engine and lets it serve; the promise is for `loop`.
  func start(from loop: LoopExecutor) -> LoopPromise<NetworkDeviceError?> {
    loop.call(on: engineLoop) { [self] in
      do throws(NetworkDeviceError) {
        try startEngine()
        return nil
      } catch {
        return error
      }
    }
  }

  private func startEngine() throws(NetworkDeviceError) {
    guard engine == nil else { return }
    do throws(DeviceError) {
      try serve()
    } catch {
      throw NetworkDeviceError(
        error, "starting queue pair \(placement.index) of \(device.backend.description)")
    }
  }

  private func serve() throws(DeviceError) {
    let map: GuestMemory
    do throws(GuestMemoryError) { map = try memory.map() } catch { throw .memory(error) }
    let receive = try areas(placement.receive, map)
    let transmit = try areas(placement.transmit, map)
    let line: any InterruptLine = wires ?? InlineLine(onInterrupt)
    let made = try device.makeEngine(
      pair: placement.index, loop: engineLoop, receive: receive, transmit: transmit, memory: map, receiveLine: line,
      transmitLine: line)
    do throws(BackendError) {
      if let wires { kickSources = try watch(wires, made) }
      try made.start()
    } catch {
      throw .backend(error)
    }
    engine = made
    inline?.connect(made)
  }

  private func areas(
    _ ring: VirtioPairPlacement.Ring, _ map: borrowing GuestMemory
  ) throws(DeviceError) -> RingAreas {
    do throws(RingError) {
      return try RingAreas(
        RingFormat(placement.features), size: ring.size, descriptorAddress: ring.descriptors,
        driverAddress: ring.driver, deviceAddress: ring.device, memory: map)
    } catch {
      throw .ring(error)
    }
  }

  private func watch(_ wires: Wires, _ engine: QueuePairEngine) throws(BackendError) -> [LoopSource] {
    do throws(LoopError) {
      let receive = try engineLoop.makeSource(eventfd: wires.kickReceiveDescriptor) { engine.kickReceive() }
      let transmit = try engineLoop.makeSource(eventfd: wires.kickTransmitDescriptor) { engine.kickTransmit() }
      receive.resume()
      transmit.resume()
      return [receive, transmit]
    } catch {
      throw BackendError(.system, "watching doorbells", errno: error.errno, advice: error.description)
    }
  }

  /// When the promise is kept, the device touches nothing of the driver's any more.
  func stop(from loop: LoopExecutor) -> LoopPromise<Void> {
    driverLoop.execute { [self] in
      callSource?.cancel()
      callSource = nil
    }
    return loop.call(on: engineLoop) { [self] in
      engine?.stop()
      inline?.connect(nil)
      engine = nil
      for source in kickSources { source.cancel() }
      kickSources = []
    }
  }
}

/// Doorbells of an engine on the same loop: a function call.
@safe private final class InlineDoorbells: VirtioDoorbells {
  // Proof: the pair keeps the engine, and clears this before it lets go of it. Unmanaged, so that ringing retains nothing.
  private var rung: Unmanaged<QueuePairEngine>?

  func connect(_ engine: QueuePairEngine?) { unsafe rung = engine.map { unsafe Unmanaged.passUnretained($0) } }
  func kickReceive() { unsafe rung?._withUnsafeGuaranteedRef { $0.kickReceive() } }
  func kickTransmit() { unsafe rung?._withUnsafeGuaranteedRef { $0.kickTransmit() } }
}

/// The interrupt of an engine on the same loop.
private final class InlineLine: InterruptLine {
  private let onInterrupt: () -> Void
  init(_ onInterrupt: @escaping () -> Void) { self.onInterrupt = onInterrupt }
  func raise() { onInterrupt() }
}

/// Three eventfds between two loops: a kick for each ring, one call for both.
private final class Wires: VirtioDoorbells, InterruptLine, Sendable {
  let kickReceiveDescriptor: CInt
  let kickTransmitDescriptor: CInt
  let call: CInt

  init() throws(LoopError) {
    let descriptors = (0..<3).map { _ in netdev_eventfd_create() }
    guard descriptors.allSatisfy({ $0 >= 0 }) else {
      for descriptor in descriptors where descriptor >= 0 { netdev_close(descriptor) }
      throw LoopError.noDescriptor(errno: -(descriptors.min() ?? 0))
    }
    kickReceiveDescriptor = descriptors[0]
    kickTransmitDescriptor = descriptors[1]
    call = descriptors[2]
  }

  deinit { for descriptor in [kickReceiveDescriptor, kickTransmitDescriptor, call] { netdev_close(descriptor) } }

  func kickReceive() { _ = netdev_eventfd_signal(kickReceiveDescriptor) }
  func kickTransmit() { _ = netdev_eventfd_signal(kickTransmitDescriptor) }
  func raise() { _ = netdev_eventfd_signal(call) }
}
