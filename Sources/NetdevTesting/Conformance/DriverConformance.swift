public import Netdev
public import PacketFormats

/// The contract between `Netdev` and a driver as a list of checks: whoever writes a driver runs it.
///
/// ```swift
/// let conformance = DriverConformance { queuePairs in
///   let wire = MyWire(queuePairs: queuePairs)
///   return DriverConformance.Joint(driver: MyDriver(on: wire.end), peer: MyReflector(on: wire.otherEnd))
/// }
/// for (check, outcome) in try await conformance.runAll() { print("\(check): \(outcome)") }
/// ```
///
/// It knows no test framework: a check that fails throws a `Violation`, which says what the rule expects and what was
/// seen. Each check makes a driver of its own, opens it, and takes it down again. Throughout it watches every slot that
/// crosses the seam in either direction: a buffer handed over twice, kept, or never given is a violation in every check.
public struct DriverConformance: Sendable {
  /// A driver that has not been started, and the peer at the other end of its wire.
  public struct Joint: Sendable {
    /// The driver under test.
    public var driver: any NetworkDriver
    /// Who sends its frames back.
    public var peer: any ConformancePeer

    /// A driver joined to a peer.
    public init(driver: any NetworkDriver, peer: any ConformancePeer) {
      self.driver = driver
      self.peer = peer
    }
  }

  /// What a driver or its peer may be unable to do. Checks that need it are then reported as not applicable.
  public enum Capability: String, Sendable, Hashable, CaseIterable {
    /// More than one queue pair, and a peer that sends each frame back to the pair it came from.
    case severalPairs
    /// The peer can hold frames and let them go later.
    case peerHolds
    /// While the peer holds, the device keeps the transmit buffers too.
    case peerHoldsBuffers
  }

  /// What became of a check that found no violation.
  public enum Outcome: Sendable, Hashable {
    /// The driver keeps the rule.
    case held
    /// The check needs these, which the driver was declared to lack: nothing was tried.
    case notApplicable(lacking: Set<Capability>)
  }

  /// A rule that a driver breaks.
  public struct Violation: Error, Sendable, Hashable, CustomStringConvertible {
    /// The check that found it.
    public let check: Check
    /// What the rule expects.
    public let expected: String
    /// What was seen instead.
    public let seen: String

    init(_ check: Check, expected: String, seen: String) {
      self.check = check
      self.expected = expected
      self.seen = seen
    }

    /// Check, rule, expectation and finding, for a person.
    public var description: String {
      "\(check.rawValue): \(check.rule) Expected: \(expected). Seen: \(seen)."
    }
  }

  /// What driver or peer cannot do.
  public var lacking: Set<Capability>
  /// Length in bytes of the shortest frame that the wire carries, at least 14: an Ethernet header.
  public var minimumFrameLength: Int
  /// The stations that frames are from and to. A wire that makes the Ethernet header itself brings a frame back as it was sent only
  /// where both are what it makes of them.
  public var stations = (source: MACAddress(2, 0, 0, 0, 0xcc, 1), destination: MACAddress(2, 0, 0, 0, 0xcc, 2))
  /// How long to wait for anything before it is taken for a violation.
  public var patience: Duration
  let join: @Sendable (_ queuePairs: Int) async throws -> Joint

  /// A suite for one kind of driver.
  ///
  /// - Parameters:
  ///   - lacking: what driver or peer cannot do.
  ///   - minimumFrameLength: bytes of the shortest frame that the wire carries.
  ///   - patience: far more than a loaded machine needs for anything that a check waits for.
  ///   - join: makes a fresh driver for so many queue pairs, joined to a peer. The wire carries nothing but what the two
  ///     send, loses nothing and keeps the order. It takes up to 1024 frames, or twice what a transmit ring holds if that is
  ///     more, which nobody has received yet.
  public init(
    lacking: Set<Capability> = [], minimumFrameLength: Int = 14, patience: Duration = .seconds(60),
    join: @escaping @Sendable (_ queuePairs: Int) async throws -> Joint
  ) {
    self.lacking = lacking
    self.minimumFrameLength = minimumFrameLength
    self.patience = patience
    self.join = join
  }
}

// MARK: - Running

extension DriverConformance {
  /// Runs one check.
  ///
  /// - Throws: what the driver does against the rule, or that it could not be made.
  @discardableResult public func run(_ check: Check) async throws(Violation) -> Outcome {
    let missing = check.needs.intersection(lacking)
    guard missing.isEmpty else { return .notApplicable(lacking: missing) }
    let trial = ConformanceTrial(check: check, suite: self)
    do {
      try await check.perform(trial)
      try await trial.finish()
      return .held
    } catch {
      await trial.abandon()
      if let violation = error as? Violation { throw violation }
      throw Violation(check, expected: "no error", seen: "\(error)")
    }
  }

  /// Runs all checks, in order, up to the first violation.
  ///
  /// - Throws: the first violation.
  public func runAll() async throws(Violation) -> [(check: Check, outcome: Outcome)] {
    var outcomes: [(check: Check, outcome: Outcome)] = []
    for check in Check.allCases { outcomes.append((check, try await run(check))) }
    return outcomes
  }
}
