/// What a monitor has seen of one ring, and what it checks when it looks again.
///
/// It looks now and then, and both sides may have gone on several times in between. So what is new is taken in the one order that
/// an honest ring has: a chain is offered, then used, then may be offered again.
struct RingRecord {
  /// A chain that the device has.
  struct Chain {
    let position: UInt16
    /// Descriptors of the table, with their numbers; none when it came and went between two looks.
    var links: [(id: UInt16, link: RingLink)] = []
    /// Bytes that the device may write; nil when that is not known.
    var writable: UInt64?
    /// Where its first bytes are.
    var first: RingLink?
  }

  let ring: MonitoredRing
  private(set) var available: UInt16
  private(set) var used: UInt16
  /// By head.
  private var chains: [Chain?]
  /// By descriptor: the head of the chain in flight that it belongs to, and one more.
  private var owners: [Int]
  private(set) var inFlight = 0
  /// Where the next look at descriptors in flight begins.
  private var cursor = 0
  /// Index up to which the other side has been told or found not to want it; nil while nobody has said so of this side.
  private var kicked: UInt16?
  private var called: UInt16?

  /// Descriptors in flight that one look compares.
  private static let compared = 8

  init(_ ring: MonitoredRing) {
    self.ring = ring
    available = ring.startIndex
    used = ring.startIndex
    chains = Array(repeating: nil, count: ring.size)
    owners = Array(repeating: 0, count: ring.size)
  }

  func broken(_ clause: RingClause, _ seen: String) -> RingViolation {
    RingViolation(clause: clause, ring: ring.name, seen: seen)
  }

  // MARK: Looking

  /// Takes what is new. `isFresh` says that the device has just shown what it used, and that nobody has touched it since.
  mutating func look(isFresh: Bool = false) throws(RingViolation) {
    let (newAvailable, newUsed) = (ring.availableIndex, ring.usedIndex)
    try checkFlags()
    if newAvailable != available || newUsed != used { try advance(newAvailable, newUsed, isFresh: isFresh) }
    try compare()
  }

  private mutating func advance(_ newAvailable: UInt16, _ newUsed: UInt16, isFresh: Bool) throws(RingViolation) {
    let offered = Int(newAvailable &- available)
    let returned = Int(newUsed &- used)
    // Backwards is nearly 65536 forward.
    guard offered <= 2 * ring.size, inFlight + offered - min(returned, inFlight + offered) <= ring.size else {
      throw broken(.availableIndex, "avail.idx goes from \(available) to \(newAvailable), \(inFlight) chains in flight")
    }
    guard returned <= inFlight + offered else {
      throw broken(
        .usedIndex, "used.idx goes from \(used) to \(newUsed), and the device has \(inFlight + offered) chains")
    }
    var frame = 0
    // Ids of this look, for chains that came and went: their descriptors may be others' by now.
    var gone: Set<UInt32> = []
    for step in 0..<returned { gone.insert(ring.usedElement(at: used &+ UInt16(truncatingIfNeeded: step)).id) }
    while available != newAvailable {
      let head = Int(ring.head(at: available))
      guard head < ring.size else { throw broken(.head, "head \(head) in a ring of \(ring.size)") }
      if chains[head] != nil {
        guard used != newUsed else { throw broken(.inFlight, "head \(head) is offered, and the device has it") }
        try takeUsed(&frame, until: newUsed, isFresh: isFresh)
        continue
      }
      var chain = Chain(position: available)
      if !gone.contains(UInt32(head)) { try walk(head, &chain) }
      chains[head] = chain
      inFlight += 1
      available &+= 1
    }
    while used != newUsed { try takeUsed(&frame, until: newUsed, isFresh: isFresh) }
    guard frame == 0 else {
      throw broken(.receivedBuffers, "\(frame) buffers of a frame are not there, and what comes before them is")
    }
  }

  /// Follows a chain that has just been offered.
  private mutating func walk(_ head: Int, _ chain: inout Chain) throws(RingViolation) {
    var id = head
    var writable: UInt64 = 0
    var count = 0
    func add(_ link: RingLink) throws(RingViolation) {
      count += 1
      guard count <= ring.size else { throw broken(.chainLength, "the chain of \(head) has no end") }
      guard link.isWritable || writable == 0 else {
        throw broken(.readableFirst, "the chain of \(head) goes on to read behind what is written")
      }
      if link.isWritable { writable += UInt64(link.length) }
      if chain.first == nil { chain.first = link }
    }
    while true {
      let link = ring.descriptor(id)
      guard chain.links.count < ring.size else { throw broken(.chainLength, "the chain of \(head) has no end") }
      guard owners[id] == 0 else {
        throw broken(.inFlight, "descriptor \(id) is in the chains of \(owners[id] - 1) and of \(head)")
      }
      chain.links.append((UInt16(truncatingIfNeeded: id), link))
      if link.isIndirect {
        for entry in try table(link, of: head) { try add(entry) }
        break
      }
      try add(link)
      guard link.hasNext else { break }
      guard link.next < ring.size else { throw broken(.next, "descriptor \(id) goes on to \(link.next)") }
      id = link.next
    }
    chain.writable = writable
    for (id, _) in chain.links { owners[Int(id)] = head + 1 }
    if ring.direction == .transmit { try checkTransmitHeader(chain, head) }
  }

  /// The descriptors of an indirect table, in the order of the chain; none when it cannot be looked at.
  private func table(_ reference: RingLink, of head: Int) throws(RingViolation) -> [RingLink] {
    guard ring.indirect else { throw broken(.indirect, "the chain of \(head) has a table, which was not negotiated") }
    guard !reference.hasNext else { throw broken(.indirect, "the chain of \(head) goes on behind its table") }
    let (count, rest) = Int(reference.length).quotientAndRemainder(dividingBy: 16)
    guard count > 0, rest == 0, count <= ring.size else {
      throw broken(.indirect, "the table of \(head) has \(reference.length) bytes")
    }
    guard let place = ring.place?(reference.address, Int(reference.length)) else { return [] }
    var links: [RingLink] = []
    var index = 0
    while true {
      let link = unsafe ring.descriptor(index, of: place)
      guard !link.isIndirect else { throw broken(.indirect, "the table of \(head) has a table in it") }
      guard links.count < count else { throw broken(.chainLength, "the table of \(head) has no end") }
      links.append(link)
      guard link.hasNext else { return links }
      guard link.next < count else {
        throw broken(.next, "entry \(index) of the table of \(head) goes on to \(link.next)")
      }
      index = link.next
    }
  }

  private mutating func takeUsed(_ frame: inout Int, until end: UInt16, isFresh: Bool) throws(RingViolation) {
    let (id, length) = ring.usedElement(at: used)
    guard id < ring.size, let chain = chains[Int(id)] else {
      throw broken(.usedChain, "chain \(id) is used, and the device does not have it")
    }
    if let writable = chain.writable, length > writable {
      throw broken(.usedLength, "chain \(id) is used with \(length) bytes, and has \(writable)")
    }
    chains[Int(id)] = nil
    for (descriptor, _) in chain.links { owners[Int(descriptor)] = 0 }
    inFlight -= 1
    used &+= 1
    if ring.direction == .receive, isFresh { try checkReceived(chain, id, length, &frame, left: Int(end &- used)) }
  }

  // MARK: What is there

  private func checkFlags() throws(RingViolation) {
    let (driver, device) = (ring.availableFlags, ring.usedFlags)
    guard driver <= (ring.eventIndex ? 0 : 1) else { throw broken(.driverFlags, "the driver's flags are \(driver)") }
    guard device <= (ring.eventIndex ? 0 : 1) else { throw broken(.deviceFlags, "the device's flags are \(device)") }
  }

  /// Some of what the device has is as it was: the next few each time.
  private mutating func compare() throws(RingViolation) {
    guard inFlight > 0 else { return }
    for _ in 0..<min(Self.compared, ring.size) {
      let head = cursor
      cursor = (cursor + 1) & (ring.size - 1)
      guard let chain = chains[head] else { continue }
      for (id, link) in chain.links where ring.descriptor(Int(id)) != link {
        throw broken(.changed, "descriptor \(id) of the chain of \(head), which the device has, has changed")
      }
      // Places of the available ring are used again where the device returns newer chains first.
      guard !chain.links.isEmpty, available &- chain.position <= UInt16(ring.size),
        ring.head(at: chain.position) != head
      else { continue }
      throw broken(.changed, "the available ring's entry for chain \(head), which the device has, has changed")
    }
  }

  // MARK: Being told

  /// The driver has asked whether the device wants to know, and has rung or not.
  mutating func noteKick(rang: Bool) throws(RingViolation) {
    try look()
    let isWanted = wants(
      from: kicked ?? ring.startIndex, to: available, event: ring.availableEvent, flags: ring.usedFlags)
    kicked = available
    if isWanted, !rang { throw broken(.kick, "the device asks for a kick at \(available), and none is sent") }
  }

  /// The device has asked whether the driver wants to know, and has interrupted or not.
  mutating func noteCall(rang: Bool) throws(RingViolation) {
    try look(isFresh: true)
    let isWanted = wants(from: called ?? ring.startIndex, to: used, event: ring.usedEvent, flags: ring.availableFlags)
    called = used
    if isWanted, !rang { throw broken(.call, "the driver asks for an interrupt at \(used), and none is sent") }
  }

  /// What was told last, `old`, and what is there now. The event is passed when it lies between.
  private func wants(from old: UInt16, to new: UInt16, event: UInt16, flags: UInt16) -> Bool {
    guard old != new else { return false }
    if !ring.eventIndex { return flags & 1 == 0 }
    return event &- old < new &- old
  }

  /// A turn is over: who has published something has looked whether the other side wants to know.
  func checkTurnEnd() throws(RingViolation) {
    if let kicked, kicked != ring.availableIndex {
      throw broken(
        .kickAtTurnEnd, "chains up to \(ring.availableIndex) are offered, and kicks were thought of up to \(kicked)")
    }
    if let called, called != ring.usedIndex {
      throw broken(
        .callAtTurnEnd, "chains up to \(ring.usedIndex) are used, and interrupts were thought of up to \(called)")
    }
  }
}

// MARK: - What headers say

extension RingRecord {
  /// Bytes of the header before each frame, as far as this library negotiates it (VIRTIO 1.4 §5.1.9).
  private static let headerBytes = 12

  private func header(_ link: RingLink?) -> UnsafeRawPointer? {
    guard let link, link.length >= Self.headerBytes else { return nil }
    return ring.place?(link.address, Self.headerBytes)
  }

  private func checkTransmitHeader(_ chain: Chain, _ head: Int) throws(RingViolation) {
    guard let header = unsafe header(chain.first) else { return }
    let flags = unsafe header.load(as: UInt8.self)
    // DATA_VALID and RSC_INFO are a device's to say.
    guard flags & ~1 == 0 else { throw broken(.transmitHeader, "the frame of \(head) has flags \(flags)") }
    let buffers = unsafe header.load(fromByteOffset: 10, as: UInt16.self)
    guard buffers == 0 else { throw broken(.transmitHeader, "the frame of \(head) says \(buffers) buffers") }
  }

  private func checkReceived(
    _ chain: Chain, _ id: UInt32, _ length: UInt32, _ frame: inout Int, left: Int
  ) throws(RingViolation) {
    if frame > 0 {
      frame -= 1
      return
    }
    // A chain that is returned empty has no frame in it.
    guard length > 0, let header = unsafe header(chain.first) else { return }
    guard length >= Self.headerBytes else {
      throw broken(.receivedBuffers, "a frame of \(length) bytes has no header")
    }
    let buffers = Int(unsafe header.load(fromByteOffset: 10, as: UInt16.self))
    guard buffers >= 1, ring.mergedBuffers || buffers == 1 else {
      throw broken(.receivedBuffers, "the frame in chain \(id) says that it lies in \(buffers) buffers")
    }
    guard buffers - 1 <= left else {
      throw broken(.receivedBuffers, "the frame in chain \(id) lies in \(buffers) buffers, and \(left + 1) are shown")
    }
    frame = buffers - 1
  }
}
