internal import Logging
internal import VirtioDevice

/// Writes what happens behind a device of this process to the log: a device model has no logger.
func logged(_ backend: any NetworkBackend, _ logger: Logger) -> @Sendable (PortEvent, Int) -> Void {
  let mtu = Int(backend.mtu ?? 1500)
  let name = backend.description
  let logger = logger.aside
  return { event, pair in
    var metadata: Logger.Metadata = ["device": "\(name)"]
    switch event {
    case .mtuChanged(let changed):
      // Back to what it was: all is well again.
      guard changed != mtu else { return }
      metadata["mtu"] = "\(changed)"
      let consequence =
        changed > mtu
        ? "its frames above \(mtu) bytes and a header are dropped" : "it may not take the longer ones of the device"
      logger.warning("the interface's MTU is not the device's: \(consequence); open it again", metadata: metadata)
    case .shared(let queues):
      metadata["queues"] = "\(queues)"
      logger.warning("others hold queues of the interface: each gets a part of the flows", metadata: metadata)
    case .unwatched:
      logger.warning(
        "the system does not say what becomes of the interface, which is looked at now and then", metadata: metadata)
    case .firstDrop(let direction, let reason):
      metadata["queue"] = "\(pair)"
      metadata["reason"] = "\(reason)"
      metadata["direction"] = "\(direction)"
      logger.notice("a frame was dropped; others for this reason are only counted", metadata: metadata)
    // These are events of the link, which are logged for every device.
    case .link, .lost: break
    }
  }
}
