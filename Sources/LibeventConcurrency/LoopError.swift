internal import Glibc

/// Why a loop, or a source on it, could not be made.
public struct LoopError: Error, Sendable, Hashable, CustomStringConvertible {
  /// What kind of failure it is; more kinds may be added.
  public struct Code: Sendable, Hashable {
    @usableFromInline enum Kind: Sendable, Hashable { case system, notOnLoop, noEventBase }
    @usableFromInline var kind: Kind
    init(_ kind: Kind) { self.kind = kind }
    /// A system call failed; `errno` says why.
    public static let system = Code(.system)
    /// The call belongs on the loop's own thread and came from another.
    public static let notOnLoop = Code(.notOnLoop)
    /// libevent could not make an event base or an event.
    public static let noEventBase = Code(.noEventBase)
  }

  /// The kind of failure.
  public let code: Code
  /// The call that failed.
  public let operation: String
  /// The system's error number, or 0 where there is none.
  public let errno: CInt

  /// No eventfd could be had.
  package static func noDescriptor(errno: CInt) -> LoopError { LoopError(.system, "eventfd", errno: errno) }

  /// Called elsewhere than where it belongs.
  package static func notOnLoop(_ operation: String) -> LoopError { LoopError(.notOnLoop, operation) }

  init(_ code: Code, _ operation: String, errno: CInt = 0) {
    self.code = code
    self.operation = operation
    self.errno = errno
  }

  /// One line for a person.
  public var description: String {
    switch code.kind {
    case .system:
      "\(operation) failed: \(ErrorNumber(errno))"
        + (errno == EMFILE ? "; \(ErrorNumber.moreDescriptors)" : "")
    case .notOnLoop: "\(operation) was called off the loop's thread; call it from an actor that lives on the loop"
    case .noEventBase: "libevent refused \(operation): is the limit of open files reached?"
    }
  }
}
