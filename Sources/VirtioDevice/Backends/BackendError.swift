internal import Glibc
internal import LibeventConcurrency

/// Why a back-end could not be opened or could not serve a queue pair, and what to do about it.
public struct BackendError: Error, Sendable, Hashable {
  /// The kind of failure; more kinds may be added.
  public struct Code: Sendable, Hashable {
    private enum Kind: Sendable, Hashable {
      case unavailable, permission, inUse, invalidConfiguration, notOffered, closed, lost, system
    }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }
    /// This machine or kernel does not have what the back-end needs.
    public static let unavailable = Code(.unavailable)
    /// The process may not do it.
    public static let permission = Code(.permission)
    /// Somebody else holds the name or the address.
    public static let inUse = Code(.inUse)
    /// What was asked for cannot be: a name, an address or a number out of range.
    public static let invalidConfiguration = Code(.invalidConfiguration)
    /// More was asked for than there is, for example more queue pairs.
    public static let notOffered = Code(.notOffered)
    /// The back-end has been closed.
    public static let closed = Code(.closed)
    /// What was behind the back-end is gone: an interface was deleted.
    public static let lost = Code(.lost)
    /// A system call failed for another reason; `errno` says which.
    public static let system = Code(.system)
  }

  /// The kind of failure.
  public let code: Code
  /// What was being done, for a person.
  public let operation: String
  /// The system's error number, or 0 where there is none.
  public let errno: CInt
  /// What to do about it, for a person.
  public let advice: String

  /// An error of a back-end; back-ends outside this module make their own.
  public init(_ code: Code, _ operation: String, errno: CInt = 0, advice: String) {
    self.code = code
    self.operation = operation
    self.errno = errno
    self.advice = advice
  }
}

extension BackendError {
  /// What to do about a failed system call: a want of descriptors has its own remedy, whatever the call was for.
  static func advice(for errno: CInt, otherwise: String) -> String {
    switch errno {
    case EMFILE: ErrorNumber.moreDescriptors
    case ENFILE: "raise the machine's limit of descriptors (/proc/sys/fs/file-max)"
    default: otherwise
    }
  }
}

extension BackendError: CustomStringConvertible {
  /// One line for a person: what failed, the system's number, and what to do.
  public var description: String {
    errno == 0 ? "\(operation): \(advice)" : "\(operation) (\(ErrorNumber(errno))): \(advice)"
  }
}
