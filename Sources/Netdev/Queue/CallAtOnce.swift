internal import CNetdevSystem

/// What surrounds each public call that does its work on the loop without an `await`: `begin`, and `end` in a `defer`.
///
/// Such a call may be made under a lock of the program's. In a build for tests others could come between at a ring's fences and before
/// a doorbell, who want that lock, too: until the end they do not. In every other build this is nothing.
enum CallAtOnce {
  @inline(__always) static func begin() {
    #if Testing
    if unsafe !netdev_fault_is_planted("held-under-lock") { netdev_fault_forbid_places(true) }
    #endif
  }

  @inline(__always) static func end() {
    #if Testing
    if unsafe !netdev_fault_is_planted("held-under-lock") { netdev_fault_forbid_places(false) }
    #endif
  }
}
