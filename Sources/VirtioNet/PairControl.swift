internal import LibeventConcurrency
internal import Netdev

/// What the driver tells a queue pair, whatever the format of its rings. On the pair's loop.
protocol PairControl: AnyObject {
  /// The reset has begun.
  func goQuiet()
  /// DRIVER_OK is set.
  func goLive()
  /// The device is lost.
  func suspend()
  /// Makes rings for the device that comes back, and tells the transport of them.
  ///
  /// - Throws: what the transport answers.
  func layAnew(_ rings: SharedRings) throws(NetworkDeviceError)
  /// The device uses the new rings. Says how many buffers are in quarantine since.
  func resume(_ terms: ResumeTerms) -> Int
  /// The device of this loss is gone at last.
  func endQuarantine(_ generation: Int)
}

/// Where the driver finds a queue pair.
struct PairReference: @unchecked Sendable {
  // Proof of Sendable: `pair` is used in calls on `loop` only, which is the loop it belongs to.
  let pair: any PairControl
  let loop: LoopExecutor
}
