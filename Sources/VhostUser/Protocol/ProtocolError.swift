/// How a message breaks the rules of the vhost-user document.
package struct ProtocolError: Error, Hashable, CustomStringConvertible {
  /// What is wrong, with the numbers that were found.
  package let description: String

  init(_ description: String) { self.description = description }
}
