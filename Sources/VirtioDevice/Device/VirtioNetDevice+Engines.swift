public import LibeventConcurrency
internal import Synchronization
public import Virtio

/// Why a queue pair could not be made.
public enum DeviceError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The driver has not come so far: features are not agreed on, or the device needs a reset.
  case notReady(DeviceStatus)
  /// There is no such pair, or MQ was not negotiated.
  case noSuchPair(Int, maximum: Int)
  /// The driver's ring is larger than the device allows.
  case queueTooLarge(Int, maximum: Int)
  /// The driver's ring breaks a rule.
  case ring(RingError)
  /// The driver's memory is not what a device can look at.
  case memory(GuestMemoryError)
  /// The back-end could not serve the pair.
  case backend(BackendError)

  /// One line for a person.
  public var description: String {
    switch self {
    case .notReady(let status): "the device is not ready for queues: its status is \(status.rawValue)"
    case .noSuchPair(let pair, let maximum): "there is no queue pair \(pair): the device has \(maximum)"
    case .queueTooLarge(let size, let maximum): "a queue of \(size) descriptors: the device allows \(maximum)"
    case .ring(let error): "the queue breaks a rule: \(error)"
    case .memory(let error): "the driver's memory breaks a rule: \(error)"
    case .backend(let error): error.description
    }
  }
}

extension VirtioNetDevice {
  /// Has the back-end do what may block, before the engine of a pair is made: not on a loop.
  ///
  /// Without it the back-end does so later, and what it is refused then ends the device.
  ///
  /// - Throws: `DeviceError` when the back-end cannot serve the pair.
  public func prepare(pair: Int) throws(DeviceError) {
    do throws(BackendError) { try backend.prepare(pair: pair) } catch { throw .backend(error) }
  }

  /// Tells a pair's engine what its driver has asked for by the control virtqueue. On the engine's loop.
  public func update(_ engine: QueuePairEngine, pair: Int) {
    engine.isEnabled = serves(pair: pair)
    engine.receiveFilter = receiveFilter
  }

  /// Makes the engine of a queue pair, stopped. On the pair's loop, after FEATURES_OK; start it after DRIVER_OK.
  ///
  /// The rings have the format that was negotiated. A ring that the driver breaks makes the device need a reset.
  ///
  /// - Parameters:
  ///   - pair: from 0.
  ///   - loop: where the pair lives.
  ///   - receive: the ring on which the driver offers buffers.
  ///   - transmit: the ring on which the driver offers frames.
  ///   - memory: the driver's memory, mapped until the engine has stopped.
  ///   - receiveLine: raised for received frames.
  ///   - transmitLine: raised for released ones.
  ///   - budget: frames moved each way in one turn.
  /// - Throws: `DeviceError` when nothing is agreed yet, or the pair, its rings or its port cannot be had.
  public func makeEngine(
    pair: Int, loop: LoopExecutor, receive: RingAreas, transmit: RingAreas, memory: consuming GuestMemory,
    receiveLine: any InterruptLine, transmitLine: any InterruptLine, budget: Int = 64
  ) throws(DeviceError) -> QueuePairEngine {
    let (status, loss) = state.withLock { ($0.status, $0.loss) }
    // It needs a reset because another pair has lost what is behind the device: that is the word.
    if status.contains(.needsReset), let loss { throw .backend(loss) }
    guard let features = negotiatedFeatures, !status.contains(.needsReset) else { throw .notReady(status) }
    let pairs = features.contains(.mq) ? maximumPairs : 1
    guard pair >= 0, pair < pairs else { throw .noSuchPair(pair, maximum: pairs) }
    for size in [receive.size, transmit.size] where size > maximumQueueSize {
      throw .queueTooLarge(size, maximum: maximumQueueSize)
    }
    let format = FrameFormat(features)
    let port: any BackendPort
    do throws(BackendError) {
      var request = PortRequest(pair: pair, loop: loop, format: format, macAddress: macAddress)
      request.loopReports = loopReports
      port = try backend.makePort(request)
    } catch {
      throw .backend(error)
    }
    do throws(RingError) {
      let engine = try QueuePairEngine(
        loop: loop, receive: receive, transmit: transmit, memory: memory, format: format, port: port,
        receiveLine: receiveLine, transmitLine: transmitLine, budget: budget, ledger: ledgers[pair],
        onEvent: { [weak self] event in self?.note(event, pair: pair) }
      ) { [weak self] _ in self?.requireReset() }
      update(engine, pair: pair)
      return engine
    } catch {
      port.close()
      throw .ring(error)
    }
  }
}
