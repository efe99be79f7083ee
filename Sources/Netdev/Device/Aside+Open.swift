package import LibeventConcurrency

extension Aside {
  /// What came of a part of opening a device.
  ///
  /// - Throws: `cancelled`, or `timedOut` when too many such calls of cancelled tasks are still being made.
  package func result() throws(NetworkDeviceError) -> Result {
    switch self {
    case .made(let result): return result
    case .cancelled: throw .openCancelled
    case .refused(let abandoned):
      throw NetworkDeviceError(
        .timedOut, "open", offered: "\(abandoned) openings that were cancelled are still being answered",
        advice: "look for who holds the system's lock of links")
    }
  }
}
