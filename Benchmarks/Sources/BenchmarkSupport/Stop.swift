/// Why there is nothing to report, and the exit status that says so.
public struct Stop: Error {
  /// One line for a person.
  public let message: String
  /// One of `sysexits.h`.
  public let status: Int32

  /// A reason.
  public init(_ message: String, status: Int32) {
    self.message = message
    self.status = status
  }
}
