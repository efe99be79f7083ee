public import PacketFormats
public import Virtio

/// A wire from each queue pair's transmit queue back to its receive queue: for tests, for measuring, and as the smallest
/// back-end to read.
///
/// Needs nothing of the system. Frames of any length are carried, as long as the driver's receive buffers take them.
public final class LoopbackBackend: NetworkBackend {
  /// "loopback".
  public let description = "loopback"
  /// None: nothing looks at the frames.
  public let features = FeatureSet()
  /// As configured.
  public let maximumPairs: Int
  /// None: the device chooses.
  public let macAddress: MACAddress? = nil
  /// None.
  public let mtu: UInt16? = nil
  /// False.
  public let mayBlock = false
  private let isLossless: Bool

  /// - Parameters:
  ///   - pairs: queue pairs, at least 1.
  ///   - lossless: a frame for which there is no receive buffer waits on the transmit ring until there is one. Without it
  ///     the frame is dropped and counted, as a wire would.
  public init(pairs: Int = 1, lossless: Bool = false) {
    maximumPairs = max(pairs, 1)
    isLossless = lossless
  }

  /// Makes the port of a pair.
  public func makePort(_ request: PortRequest) throws(BackendError) -> any BackendPort {
    guard request.pair >= 0, request.pair < maximumPairs else {
      throw BackendError(
        .notOffered, "starting queue pair \(request.pair) of the loopback", advice: "it has \(maximumPairs) pairs")
    }
    return LoopbackPort(isLossless: isLossless)
  }

  /// There is nothing to give back.
  public func close() {}
}
