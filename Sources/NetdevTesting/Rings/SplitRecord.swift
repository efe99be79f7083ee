internal import Virtio

/// What a monitor has seen of a split ring.
///
/// It looks now and then, and both sides may have gone on several times in between. So what is new is taken in the one order that
/// an honest ring has: a chain is offered, then used, then may be offered again.
struct SplitRecord: RingRecord {
  /// A chain that the device has.
  private struct Chain {
    let position: UInt16
    /// Descriptors of the table, with their numbers; none when it came and went between two looks.
    var links: [(id: UInt16, link: SplitLink)] = []
    /// Its buffers; nil when that is not known.
    var shape: ChainShape?
  }

  let ring: MonitoredRing
  private var available: UInt16
  private var used: UInt16
  /// By head.
  private var chains: [Chain?]
  /// By descriptor: the head of the chain in flight that it belongs to, and one more.
  private var owners: [Int]
  private var inFlight = 0
  /// With IN_ORDER: heads in flight, the oldest first, and the descriptor that follows; nil when it is not known.
  private var order: [UInt16] = []
  private var following: Int? = 0
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

  // MARK: Looking

  mutating func look(isFresh: Bool) throws(RingViolation) {
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
    if !ring.inOrder {
      for step in 0..<returned { gone.insert(ring.usedElement(at: used &+ UInt16(truncatingIfNeeded: step)).id) }
    }
    while available != newAvailable {
      let head = Int(ring.head(at: available))
      guard head < ring.size else { throw broken(.head, "head \(head) in a ring of \(ring.size)") }
      if chains[head] != nil {
        guard used != newUsed else { throw broken(.inFlight, "head \(head) is offered, and the device has it") }
        try takeUsed(&frame, until: newUsed, isFresh: isFresh)
        continue
      }
      // In order, chains are used at the index at which they were offered.
      let isGone = ring.inOrder ? Int16(bitPattern: newUsed &- available) > 0 : gone.contains(UInt32(head))
      var chain = Chain(position: available)
      if isGone { following = nil } else { try walk(head, &chain) }
      chains[head] = chain
      if ring.inOrder { order.append(UInt16(truncatingIfNeeded: head)) }
      inFlight += 1
      available &+= 1
    }
    while used != newUsed { try takeUsed(&frame, until: newUsed, isFresh: isFresh) }
    try checkWhole(frame)
  }

  /// Follows a chain that has just been offered.
  private mutating func walk(_ head: Int, _ chain: inout Chain) throws(RingViolation) {
    var id = head
    var shape = ChainShape()
    while true {
      let link = ring.splitLink(id)
      guard chain.links.count < ring.size else { throw broken(.chainLength, "the chain of \(head) has no end") }
      guard owners[id] == 0 else {
        throw broken(.inFlight, "descriptor \(id) is in the chains of \(owners[id] - 1) and of \(head)")
      }
      try checkTableOrder(id)
      chain.links.append((UInt16(truncatingIfNeeded: id), link))
      if link.isIndirect {
        for entry in try table(link, of: head) { try add(entry.buffer, to: &shape, of: head) }
        break
      }
      try add(link.buffer, to: &shape, of: head)
      guard link.hasNext else { break }
      guard link.next < ring.size else { throw broken(.next, "descriptor \(id) goes on to \(link.next)") }
      id = link.next
    }
    chain.shape = shape
    for (id, _) in chain.links { owners[Int(id)] = head + 1 }
    try checkTransmitHeader(shape.first, of: head)
  }

  /// With IN_ORDER a descriptor follows the one that was taken before it, of whatever chain.
  private mutating func checkTableOrder(_ id: Int) throws(RingViolation) {
    guard ring.inOrder else { return }
    if let following, following != id {
      throw broken(.tableOrder, "descriptor \(id) is used with IN_ORDER, and \(following) comes next")
    }
    following = (id + 1) & (ring.size - 1)
  }

  /// The descriptors of an indirect table, in the order of the chain; none when it cannot be looked at.
  private func table(_ reference: SplitLink, of head: Int) throws(RingViolation) -> [SplitLink] {
    guard !reference.hasNext else { throw broken(.indirect, "the chain of \(head) goes on behind its table") }
    let count = try tableCount(reference.length, of: head)
    guard let place = ring.place?(reference.address, Int(reference.length)) else { return [] }
    var links: [SplitLink] = []
    var index = 0
    while true {
      let link = unsafe ring.splitLink(index, of: place)
      guard !link.isIndirect else { throw broken(.indirect, "the table of \(head) has a table in it") }
      guard links.count < count else { throw broken(.chainLength, "the table of \(head) has no end") }
      links.append(link)
      guard link.hasNext else { return links }
      guard link.next < count else {
        throw broken(.next, "entry \(index) of the table of \(head) goes on to \(link.next)")
      }
      guard !ring.inOrder || link.next == index + 1 else {
        throw broken(.tableOrder, "entry \(index) of the table of \(head) goes on to \(link.next) with IN_ORDER")
      }
      index = link.next
    }
  }

  private mutating func takeUsed(_ frame: inout Int, until end: UInt16, isFresh: Bool) throws(RingViolation) {
    let (id, length) = ring.usedElement(at: used)
    guard id < ring.size, let last = chains[Int(id)] else {
      throw broken(.usedChain, "chain \(id) is used, and the device does not have it")
    }
    if let shape = last.shape, length > shape.writable {
      throw broken(.usedLength, "chain \(id) is used with \(length) bytes, and has \(shape.writable)")
    }
    // What a batch skips was used completely.
    while ring.inOrder, let oldest = order.first, oldest != id {
      try giveBack(oldest, length: chains[Int(oldest)]?.shape?.writable ?? 0, &frame, isFresh: isFresh)
      guard used != end else { throw broken(.usedOrder, "chain \(id) is used, and chains before it are not") }
    }
    try giveBack(UInt16(truncatingIfNeeded: id), length: UInt64(length), &frame, isFresh: isFresh)
  }

  private mutating func giveBack(
    _ head: UInt16, length: UInt64, _ frame: inout Int, isFresh: Bool
  ) throws(RingViolation) {
    guard let chain = chains[Int(head)] else { return }
    chains[Int(head)] = nil
    for (descriptor, _) in chain.links { owners[Int(descriptor)] = 0 }
    if ring.inOrder { order.removeFirst() }
    inFlight -= 1
    used &+= 1
    if isFresh { try checkReceived(chain.shape?.first, of: Int(head), length: length, &frame) }
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
      for (id, link) in chain.links where ring.splitLink(Int(id)) != link {
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

  mutating func noteKick(rang: Bool) throws(RingViolation) {
    try look(isFresh: false)
    let isWanted = wants(
      from: kicked ?? ring.startIndex, to: available, event: ring.availableEvent, flags: ring.usedFlags)
    kicked = available
    if isWanted, !rang { throw broken(.kick, "the device asks for a kick at \(available), and none is sent") }
  }

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
