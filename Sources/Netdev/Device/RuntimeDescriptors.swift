internal import CNetdevSystem
internal import LibeventConcurrency

/// Descriptors for the runtime's pool of threads.
///
/// When it is first used, the pool opens some (libdispatch's epoll, eventfd and timerfd, later one at a time for a look at its
/// threads), and it ends the process when it cannot have them. A program whose work is done on loops may come to the pool as late
/// as at its end, when its devices have taken what there was. While descriptors are plentiful that is no concern, and the pool is
/// left asleep: once used, it wakes up every second.
enum RuntimeDescriptors {
  /// So many free ones are plenty.
  private static let plenty: CInt = 64
  /// What the pool opens, and a few more.
  private static let needed: CInt = 8

  /// Where descriptors are scarce, has the pool open its own now. It takes as long as that; no cancellation ends it.
  ///
  /// - Throws: `system` when there are not enough of them.
  static func secure() async throws(NetworkDeviceError) {
    let free = netdev_descriptors_free(plenty)
    if free >= plenty { return }
    // A count that cannot be had is no refusal: the reserve tells.
    guard free < 0 || free >= needed else { throw missing("\(free) descriptors are free") }
    var reserve = netdev_reserve()
    let refusal = unsafe netdev_reserve_take(&reserve, needed)
    guard refusal == 0 else { throw missing("\(ErrorNumber(refusal))") }
    // A timer, because the pool runs a mere job before its own thread has opened anything.
    await Task.detached { try? await Task.sleep(for: .nanoseconds(1)) }.value
    unsafe netdev_reserve_give_back(&reserve)
  }

  private static func missing(_ found: String) -> NetworkDeviceError {
    NetworkDeviceError(
      .system, "open", offered: "\(found), and Swift's runtime needs \(needed)",
      advice: ErrorNumber.moreDescriptors)
  }
}
