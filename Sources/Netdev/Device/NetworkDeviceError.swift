/// What went wrong with a device, queue or packet: the operation, what was offered, and what to do about it.
public struct NetworkDeviceError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The kind of failure. More kinds may come; switch with a default.
  public struct Code: Sendable, Hashable, CustomStringConvertible {
    private enum Kind: String, Sendable, Hashable {
      case cancelled, closed, broken, resetNotConfirmed, invalidConfiguration, unsupported, notPermitted, notFound, busy
      case outOfMemory, frameTooLong, frameLost, linkDown, timedOut, system
    }
    private let kind: Kind
    private init(_ kind: Kind) { self.kind = kind }

    /// The task was cancelled before its packet was published.
    public static let cancelled = Code(.cancelled)
    /// The device was closed.
    public static let closed = Code(.closed)
    /// The peer broke the protocol, or the device asked for a reset.
    public static let broken = Code(.broken)
    /// The device did not confirm a reset in time: its memory is quarantined.
    public static let resetNotConfirmed = Code(.resetNotConfirmed)
    /// A setting makes no sense or does not fit the device.
    public static let invalidConfiguration = Code(.invalidConfiguration)
    /// The device, or this build, cannot do it.
    public static let unsupported = Code(.unsupported)
    /// The system refuses: rights are missing.
    public static let notPermitted = Code(.notPermitted)
    /// There is no such device, interface or file.
    public static let notFound = Code(.notFound)
    /// Somebody else has the name, port or device.
    public static let busy = Code(.busy)
    /// Memory for buffers or rings cannot be had.
    public static let outOfMemory = Code(.outOfMemory)
    /// A frame is longer than the device or a buffer takes.
    public static let frameTooLong = Code(.frameTooLong)
    /// The device was lost while it had the frame, and comes back or is looked for: whether the frame went out is not known.
    public static let frameLost = Code(.frameLost)
    /// The device is there, and its link is down: the cause in ``LinkChange``.
    public static let linkDown = Code(.linkDown)
    /// The peer did not answer in time.
    public static let timedOut = Code(.timedOut)
    /// A system call failed for another reason.
    public static let system = Code(.system)

    /// The code's name.
    public var description: String { kind.rawValue }
  }

  /// The kind of failure.
  public let code: Code
  /// The operation that failed.
  public let operation: String
  /// What was asked, offered or found.
  public let offered: String
  /// What to do about it; empty where there is nothing.
  public let advice: String

  /// An error; drivers and transports make them too.
  public init(_ code: Code, _ operation: String, offered: String = "", advice: String = "") {
    self.code = code
    self.operation = operation
    self.offered = offered
    self.advice = advice
  }

  /// Whether the error is about what the call brought only, a frame or a burst, which was not sent, or perhaps not; the queue goes on,
  /// and so should its program.
  public var concernsOneFrame: Bool { code == .frameTooLong || code == .frameLost }

  /// One line for a person.
  public var description: String {
    var line = "\(operation): \(code)"
    if !offered.isEmpty { line += ": \(offered)" }
    if !advice.isEmpty { line += "; \(advice)" }
    return line
  }
}
