import Synchronization

// What happens to a device beside frames, and what became of frames that it did not carry.
extension VirtioNetDevice {
  /// Why no frame passes any more, since the back-end lost what is behind it; nil while it works. From any thread.
  public var loss: BackendError? { state.withLock { $0.loss } }

  /// What the device's side of each queue pair has dropped so far, over all resets. From any thread; no pair notices.
  public var drops: [DropCounts] { ledgers.map { $0.drops } }

  /// What the device's side of each queue pair has done so far, over all resets. From any thread; no pair notices.
  public var statistics: [QueuePairStatistics] { ledgers.map { $0.statistics } }

  /// What a pair's port or engine tells. On the pair's loop.
  func note(_ event: PortEvent, pair: Int) {
    switch event {
    case .link(let isUp):
      // Each pair of an interface may see it.
      guard isLinkUp != isUp else { return }
      isLinkUp = isUp
    case .lost(let error):
      let isFirst = state.withLock { state -> Bool in
        guard state.loss == nil else { return false }
        state.loss = error
        return true
      }
      guard isFirst else { return }
      requireReset()
    case .mtuChanged, .shared, .unwatched, .firstDrop: break
    }
    onEvent?(event, pair)
  }
}
