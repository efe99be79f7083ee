/// Watches split rings as VIRTIO prescribes them, from outside: it reads what both sides have written, keeps what it saw, and
/// says which clause was broken.
///
/// A `Simulation` has one that watches every ring of virtio-net that lives in its world: it looks at each doorbell, each interrupt
/// and the end of each turn (`WorldSchedule`), and what it finds fails the run. Tests of other rings tell one of them by
/// ``watch(_:)``. It is used on one thread, which both sides' turns do not overlap.
///
/// What cannot be seen from outside it does not check: what a side reads, in which order it wrote what was written between two
/// looks, and what lies in buffers after they were handed on.
@safe public final class RingMonitor {
  private var records: [RingRecord] = []
  private let checks = RingChecks()

  /// Watches nothing yet.
  public init() {}

  /// How often a clause was looked at where it could have been broken, by all monitors of this process that are no more: one
  /// that never was is one that was not checked.
  public static func checks(of clause: RingClause) -> Int { RingChecks.total(clause) }

  /// Watches a ring from now on, before anything is in it; a ring of the same place is forgotten.
  public func watch(_ ring: MonitoredRing) {
    forget(ring.identity)
    records.append(RingRecord(ring, checks))
  }

  /// Watches a ring no more: its memory may go.
  public func forget(_ identity: UInt) { records.removeAll { $0.ring.identity == identity } }

  /// Rings that are watched.
  public var count: Int { records.count }

  /// Looks at all of them; what is broken. A ring of which something was found is watched no more.
  public func look() -> [RingViolation] {
    each { (record: inout RingRecord) throws(RingViolation) in try record.look() }
  }

  /// A turn is over: as `look`, and nobody has published what the other side does not know of.
  public func endTurn() -> [RingViolation] {
    each { (record: inout RingRecord) throws(RingViolation) in
      try record.look()
      try record.checkTurnEnd()
    }
  }

  /// The driver of a ring has asked whether its device wants to be told, and has rung if `rang`.
  public func noteKick(_ identity: UInt, rang: Bool) -> [RingViolation] {
    one(identity) { (record: inout RingRecord) throws(RingViolation) in try record.noteKick(rang: rang) }
  }

  /// The device of a ring has asked whether its driver wants to be told, and has interrupted if `rang`.
  public func noteCall(_ identity: UInt, rang: Bool) -> [RingViolation] {
    one(identity) { (record: inout RingRecord) throws(RingViolation) in try record.noteCall(rang: rang) }
  }

  /// The driver of a ring is about to take back what is used, and has touched nothing of it.
  public func noteTaking(_ identity: UInt) -> [RingViolation] {
    one(identity) { (record: inout RingRecord) throws(RingViolation) in try record.look(isFresh: true) }
  }

  private func one(
    _ identity: UInt, _ body: (inout RingRecord) throws(RingViolation) -> Void
  ) -> [RingViolation] {
    guard let place = records.firstIndex(where: { $0.ring.identity == identity }) else { return [] }
    do throws(RingViolation) {
      try body(&records[place])
      return []
    } catch {
      records.remove(at: place)
      return [error]
    }
  }

  private func each(_ body: (inout RingRecord) throws(RingViolation) -> Void) -> [RingViolation] {
    var found: [RingViolation] = []
    for place in records.indices.reversed() {
      do throws(RingViolation) {
        try body(&records[place])
      } catch {
        records.remove(at: place)
        found.append(error)
      }
    }
    return found
  }
}
