internal import LibeventConcurrency

// What a driver whose device was lost gives back otherwise than by its bursts.
extension NetworkQueue {
  /// On the loop.
  nonisolated func failInFlight(_ entry: TransmitEntry, _ error: NetworkDeviceError) {
    unsafe core?.failInFlight(entry, error)
  }

  /// On the loop.
  nonisolated func takeBack(_ slot: UInt32) { unsafe core?.takeBack(slot) }
}

extension QueueCore {
  /// A published frame will never be released.
  func failInFlight(_ entry: TransmitEntry, _ error: NetworkDeviceError) {
    unsafe state.pointee.inFlight -= 1
    statistics.packetsFailed &+= 1
    statistics.failedInFlight &+= 1
    releaseBuffer(entry.slot)
    if entry.cookie != 0 { settleFailed(entry.cookie, error) }
    loop.requestTurn()
  }

  /// A posted buffer is free.
  func takeBack(_ slot: UInt32) {
    releaseBuffer(slot)
    loop.requestTurn()
  }
}
