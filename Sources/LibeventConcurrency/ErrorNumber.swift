internal import CNetdevSystem

/// A number by which the system says why a call failed, for a person: "ENODEV (19): No such device".
package struct ErrorNumber: Sendable, Hashable, CustomStringConvertible {
  /// The number; positive.
  package let number: CInt

  /// - Parameter number: the number, or its negative, which many calls return.
  package init(_ number: CInt) { self.number = number < 0 ? 0 &- number : number }

  /// What to do where the process has as many descriptors as it may have.
  package static let moreDescriptors = "raise the limit of descriptors (ulimit -n), or close some"

  /// The number's name, and what it means; the number alone where it has no name.
  package var description: String {
    // Constants of the C library, which nobody frees.
    guard let name = unsafe netdev_error_name(number), let meaning = unsafe netdev_error_meaning(number) else {
      return "error number \(number)"
    }
    return unsafe "\(String(cString: name)) (\(number)): \(String(cString: meaning))"
  }
}
