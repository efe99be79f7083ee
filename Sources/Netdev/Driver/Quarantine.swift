internal import Synchronization

/// Memory that a device may still write to after a reset that it did not confirm: kept mapped until the process ends.
///
/// A list and not a lost reference, so that a leak checker tells what is kept on purpose from what is leaked.
public enum Quarantine {
  private static let kept = Mutex<[any AnyObject & Sendable]>([])

  /// Keeps a pool, ring memory or whatever else owns such memory for good. From any thread.
  public static func keep(_ owner: any AnyObject & Sendable) { kept.withLock { $0.append(owner) } }

  /// Pieces of memory kept so far in this process.
  public static var count: Int { kept.withLock { $0.count } }
}
