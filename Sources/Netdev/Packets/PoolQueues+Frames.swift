internal import Synchronization

// What the devices of a pool have: buffers that can be expected.
extension PoolQueues {
  /// The frames that the devices of a pool had at one moment: each may free a buffer when it comes back.
  struct FramesOut: Sendable {
    /// By owner: how many frames it will have had back when all of these are.
    fileprivate let marks: [(owner: UInt64, back: UInt64)]
    static var none: FramesOut { FramesOut(marks: []) }
  }

  /// The frames that devices have now.
  func framesOut() -> FramesOut {
    state.withLock { state in
      FramesOut(
        marks: state.entries.compactMap { entry in
          guard let owner = entry.owner else { return nil }
          // Read in this order: what is back was submitted before.
          let back = owner.counters.framesBack
          let submitted = owner.counters.packetsSubmitted
          return back < submitted ? (owner.number, submitted) : nil
        })
    }
  }

  /// True while a device has any of these frames. A device that gives frames back in another order than it got them is
  /// counted by how many are back.
  func isAnyOut(_ frames: FramesOut) -> Bool {
    guard !frames.marks.isEmpty else { return false }
    return state.withLock { state in
      frames.marks.contains { mark in
        guard let owner = state.entries.first(where: { $0.owner?.number == mark.owner })?.owner else { return false }
        return owner.counters.framesBack < mark.back
      }
    }
  }
}
