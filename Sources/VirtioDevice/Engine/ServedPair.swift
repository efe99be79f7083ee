package import LibeventConcurrency
package import Virtio

/// A queue pair of a device while it is served, wherever its driver is: the engine, and where the driver is on another loop or in
/// another process the eventfds that it rings. Made, used and released on the pair's loop.
package final class ServedPair {
  /// What the driver rings for each ring. The descriptors stay open as long as `owner` lives.
  package struct Kicks {
    let receive: CInt
    let transmit: CInt
    let owner: any AnyObject & Sendable

    /// Two eventfds, kept by `owner`.
    package init(receive: CInt, transmit: CInt, owner: any AnyObject & Sendable) {
      self.receive = receive
      self.transmit = transmit
      self.owner = owner
    }
  }

  /// For a driver on the same loop, which kicks it directly.
  package let engine: QueuePairEngine
  private let kicks: Kicks?
  private var sources: [LoopSource] = []

  /// Makes the engine of a pair of `device`, stopped: as `VirtioNetDevice.makeEngine`, which says what it needs.
  ///
  /// - Parameter kicks: nil where the driver kicks the engine itself.
  /// - Throws: `DeviceError` when nothing is agreed yet, or the pair, its rings or its port cannot be had.
  package init(
    _ pair: Int, of device: VirtioNetDevice, loop: LoopExecutor, receive: RingAreas, transmit: RingAreas,
    memory: consuming GuestMemory, kicks: Kicks? = nil, receiveLine: any InterruptLine, transmitLine: any InterruptLine
  ) throws(DeviceError) {
    self.kicks = kicks
    engine = try device.makeEngine(
      pair: pair, loop: loop, receive: receive, transmit: transmit, memory: memory, receiveLine: receiveLine,
      transmitLine: transmitLine)
  }

  /// Begins to serve, and to hear kicks.
  ///
  /// - Throws: `DeviceError.backend`, with what the port or the system answered; nothing is served then.
  package func start() throws(DeviceError) {
    do throws(BackendError) {
      try watch()
      try engine.start()
    } catch {
      stop()
      throw .backend(error)
    }
  }

  private func watch() throws(BackendError) {
    guard let kicks, sources.isEmpty else { return }
    do throws(LoopError) {
      for descriptor in [kicks.receive, kicks.transmit] {
        let source = try engine.loop.makeSource(eventfd: descriptor, keeping: kicks.owner) { [engine] in engine.kick() }
        source.resume()
        sources.append(source)
      }
    } catch {
      throw BackendError(.system, "watching doorbells", errno: error.errno, advice: error.description)
    }
  }

  /// Stops serving: afterwards nothing in the driver's memory is read or written any more. Idempotent.
  ///
  /// - Returns: where the rings stood, as `QueuePairEngine.stop` has it.
  @discardableResult package func stop() -> QueuePairEngine.Bases {
    for source in sources { source.cancel() }
    sources = []
    return engine.stop()
  }
}
