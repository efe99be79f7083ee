internal import Virtio

/// What a monitor has seen of a split ring.
///
/// It looks now and then, and both sides may have gone on several times in between. So what is new is taken in the one order that
/// an honest ring has: a chain is offered, then used, then may be offered again, it or its descriptors in another one. What may
/// have been written over meanwhile is not judged.
struct SplitRecord: RingRecord {
  /// A chain that the device has.
  struct Chain {
    let position: UInt16
    /// Descriptors of the table, with their numbers; none when it came and went between two looks.
    var links: [(id: UInt16, link: SplitLink)] = []
    /// Those of its indirect table, with their places in it.
    var entries: [(id: UInt16, link: SplitLink)] = []
    /// Bytes that the device may read, and that it may write; nil when that is not known.
    var room: (readable: UInt64, writable: UInt64)?

    /// Its buffers in order; those of its table come last. None when they are not known.
    var buffers: [WatchedBuffer] {
      let isTable = links.last?.link.isIndirect == true
      if isTable, entries.isEmpty { return [] }
      return (isTable ? links.dropLast() + entries : links).map { $0.link.buffer }
    }
  }

  let ring: MonitoredRing
  private var available: UInt16
  private var used: UInt16
  /// By head.
  private var chains: [Chain?]
  /// By descriptor: the head of the chain in flight that it belongs to, and one more.
  private var owners: [Int]
  private var inFlight = 0
  /// Of those in flight, the ones whose heads could not be read any more.
  private var unknown = 0
  /// With IN_ORDER: heads in flight, the oldest first; the descriptor that follows, nil when it is not known; and whether nothing is
  /// judged until the device has nothing any more, since the order of what it has is not known.
  private var order: [UInt16] = []
  private var following: Int? = 0
  private var isOrderUnknown = false
  /// Where the next look at descriptors in flight begins.
  private var cursor = 0
  /// Index up to which the other side has been told or found not to want it; nil while nobody has said so of this side.
  private var kicked: UInt16?
  private var called: UInt16?
  let checks: RingChecks

  /// Chains in flight that one look compares.
  private static let compared = 8

  init(_ ring: MonitoredRing, _ checks: RingChecks) {
    self.ring = ring
    self.checks = checks
    available = ring.startIndex
    used = ring.startIndex
    chains = Array(repeating: nil, count: ring.size)
    owners = Array(repeating: 0, count: ring.size)
  }

  // MARK: Looking

  mutating func look(isFresh: Bool) throws(RingViolation) {
    let (newAvailable, newUsed) = (ring.availableIndex, ring.usedIndex)
    try checkFlags()
    if newAvailable != available || newUsed != used {
      try advance(newAvailable, newUsed, isFresh: isFresh || ring.saysWhatItTakes)
    }
    try compare()
  }

  private mutating func advance(_ newAvailable: UInt16, _ newUsed: UInt16, isFresh: Bool) throws(RingViolation) {
    let offered = Int(newAvailable &- available)
    let returned = Int(newUsed &- used)
    // Backwards is nearly 65536 forward.
    try check(
      .availableIndex,
      offered < 1 << 15 && inFlight + offered - min(returned, inFlight + offered) <= ring.size,
      "avail.idx goes from \(available) to \(newAvailable), \(inFlight) chains in flight")
    try check(
      .usedIndex, returned <= inFlight + offered,
      "used.idx goes from \(used) to \(newUsed), and the device has \(inFlight + offered) chains")
    if isOrderUnknown || !canRead(offered: offered, returned: returned) { return loseTrack(newAvailable, newUsed) }
    var frame: Int? = 0
    // Of the chains that are used: those that are offered in this look as well have come and gone, and their descriptors may be
    // another's by now.
    var gone: [UInt32: Int] = [:]
    for step in 0..<returned {
      gone[ring.usedElement(at: used &+ UInt16(truncatingIfNeeded: step)).id, default: 0] += 1
    }
    func takeUsed(_ record: inout SplitRecord) throws(RingViolation) {
      gone[record.ring.usedElement(at: record.used).id, default: 1] -= 1
      try record.takeUsed(&frame, until: newUsed, isFresh: isFresh)
    }
    while available != newAvailable {
      let head = Int(ring.head(at: available))
      try check(.head, head < ring.size, "head \(head) in a ring of \(ring.size)")
      let isFree = chains[head] == nil
      try check(.inFlight, isFree || used != newUsed, "head \(head) is offered, and the device has it")
      guard isFree else {
        try takeUsed(&self)
        continue
      }
      var chain = Chain(position: available)
      // In order, chains are used at the index at which they were offered.
      let isGone =
        ring.inOrder ? Int16(bitPattern: newUsed &- available) > 0 : gone[UInt32(head), default: 0] != 0
      if isGone {
        following = nil
      } else {
        // Its descriptors may have been another's until that was used.
        while let owner = try walk(head, &chain) {
          try check(.inFlight, used != newUsed, "a descriptor of the chain of \(head) is in that of \(owner)")
          try takeUsed(&self)
          chain = Chain(position: available)
        }
      }
      chains[head] = chain
      if ring.inOrder { order.append(UInt16(truncatingIfNeeded: head)) }
      inFlight += 1
      available &+= 1
    }
    while used != newUsed { try takeUsed(&self) }
    try checkWhole(frame)
  }

  /// Whether what both sides have published is still there to be read: each may already have written into the places of the next
  /// entries that it will publish, the driver as many as the device does not have, the device as many as it has.
  private func canRead(offered: Int, returned: Int) -> Bool {
    offered == 0 || returned == 0 || returned <= inFlight && inFlight + offered <= ring.size
  }

  /// Goes on from here without knowing which chains the device has.
  private mutating func loseTrack(_ newAvailable: UInt16, _ newUsed: UInt16) {
    inFlight += Int(newAvailable &- available) - Int(newUsed &- used)
    unknown = inFlight
    (order, following, isOrderUnknown) = ([], nil, ring.inOrder && inFlight > 0)
    (available, used) = (newAvailable, newUsed)
    for place in 0..<ring.size { (chains[place], owners[place]) = (nil, 0) }
  }

  /// Follows a chain that has just been offered; the head of the one in flight that a descriptor of it belongs to, if any does.
  private mutating func walk(_ head: Int, _ chain: inout Chain) throws(RingViolation) -> Int? {
    var id = head
    var following = following
    while true {
      let link = ring.splitLink(id)
      try check(.chainLength, chain.links.count < ring.size, "the chain of \(head) has no end")
      if owners[id] != 0 { return owners[id] - 1 }
      if ring.inOrder {
        let next = following ?? id
        try check(.tableOrder, id == next, "descriptor \(id) is used with IN_ORDER, and \(next) comes next")
        following = (id + 1) & (ring.size - 1)
      }
      chain.links.append((UInt16(truncatingIfNeeded: id), link))
      if link.isIndirect {
        try follow(link, of: head, into: &chain)
        break
      }
      guard link.hasNext else { break }
      try check(.next, link.next < ring.size, "descriptor \(id) goes on to \(link.next)")
      id = link.next
    }
    self.following = following
    let buffers = chain.buffers
    // One whose table cannot be looked at has none.
    if !buffers.isEmpty { chain.room = try room(in: buffers, of: head) }
    for (id, _) in chain.links { owners[Int(id)] = head + 1 }
    try checkTransmitHeader(buffers, readable: chain.room?.readable, of: head)
    return nil
  }

  /// The descriptors of an indirect table, in the order of the chain; none when it cannot be looked at.
  private func follow(_ reference: SplitLink, of head: Int, into chain: inout Chain) throws(RingViolation) {
    let count = try tableCount(reference.length, of: head)
    try check(.indirect, !reference.hasNext, "the chain of \(head) goes on behind its table")
    guard let place = ring.place?(reference.address, Int(reference.length)) else { return }
    var index = 0
    while true {
      let link = unsafe ring.splitLink(index, of: place)
      try check(.indirect, !link.isIndirect, "the table of \(head) has a table in it")
      try check(.chainLength, chain.entries.count < count, "the table of \(head) has no end")
      chain.entries.append((UInt16(truncatingIfNeeded: index), link))
      guard link.hasNext else { return }
      try check(.next, link.next < count, "entry \(index) of the table of \(head) goes on to \(link.next)")
      if ring.inOrder {
        let isNext = link.next == index + 1
        try check(.tableOrder, isNext, "entry \(index) of the table of \(head) goes on to \(link.next) with IN_ORDER")
      }
      index = link.next
    }
  }

  /// - Parameter frame: buffers of the received frame that are still to come; nil when it is not known where the next one begins.
  private mutating func takeUsed(_ frame: inout Int?, until end: UInt16, isFresh: Bool) throws(RingViolation) {
    let (id, length) = ring.usedElement(at: used)
    if unknown > 0, id >= ring.size || chains[Int(id)] == nil {
      try check(.usedChain, id < ring.size, "chain \(id) is used, in a ring of \(ring.size)")
      unknown -= 1
      inFlight -= 1
      used &+= 1
      skipBuffer(&frame)
      return
    }
    let chain = id < ring.size ? chains[Int(id)] : nil
    try check(.usedChain, chain != nil, "chain \(id) is used, and the device does not have it")
    guard let chain else { return }
    if let writable = chain.room?.writable {
      try check(.usedLength, length <= writable, "chain \(id) is used with \(length) bytes, and has \(writable)")
    }
    // What a batch skips was used completely.
    while ring.inOrder, let oldest = order.first, oldest != id {
      try giveBack(oldest, length: chains[Int(oldest)]?.room?.writable ?? 0, &frame, isFresh: isFresh)
      try check(.usedOrder, used != end, "chain \(id) is used, and chains before it are not")
    }
    try giveBack(UInt16(truncatingIfNeeded: id), length: UInt64(length), &frame, isFresh: isFresh)
  }

  /// A chain that the device had has come back.
  private mutating func giveBack(
    _ head: UInt16, length: UInt64, _ frame: inout Int?, isFresh: Bool
  ) throws(RingViolation) {
    guard let chain = chains[Int(head)] else { return }
    // The driver has not had it back yet.
    if isFresh { try checkUnchanged(chain, Int(head)) }
    chains[Int(head)] = nil
    for (descriptor, _) in chain.links { owners[Int(descriptor)] = 0 }
    if ring.inOrder { order.removeFirst() }
    inFlight -= 1
    used &+= 1
    if isFresh { try checkReceived(chain.buffers, of: Int(head), length: length, &frame) }
  }

  // MARK: What is there

  private func checkFlags() throws(RingViolation) {
    let (driver, device) = (ring.availableFlags, ring.usedFlags)
    try check(.driverFlags, driver <= (ring.eventIndex ? 0 : 1), "the driver's flags are \(driver)")
    try check(.deviceFlags, device <= (ring.eventIndex ? 0 : 1), "the device's flags are \(device)")
  }

  /// Some of what the device has is as it was: the next few each time.
  private mutating func compare() throws(RingViolation) {
    guard inFlight > 0 else { return }
    for _ in 0..<min(Self.compared, ring.size) {
      let head = cursor
      cursor = (cursor + 1) & (ring.size - 1)
      guard let chain = chains[head] else { continue }
      try checkUnchanged(chain, head)
      // Places of the available ring are used again where the device returns newer chains first; what the driver may have written
      // there without publishing it is not looked at either.
      guard !chain.links.isEmpty, Int(available &- chain.position) <= inFlight else { continue }
      let isSame = ring.head(at: chain.position) == head
      try check(
        .changed, isSame, "the available ring's entry for chain \(head), which the device has, has changed")
    }
  }

  /// The descriptors of a chain that the device has are as they were offered.
  private func checkUnchanged(_ chain: Chain, _ head: Int) throws(RingViolation) {
    for (id, link) in chain.links {
      let isSame = ring.splitLink(Int(id)) == link
      try check(.changed, isSame, "descriptor \(id) of the chain of \(head), which the device has, has changed")
    }
    guard let reference = chain.links.last?.link, reference.isIndirect, !chain.entries.isEmpty,
      let place = ring.place?(reference.address, Int(reference.length))
    else { return }
    for (id, link) in chain.entries {
      let isSame = unsafe ring.splitLink(Int(id), of: place) == link
      try check(.changed, isSame, "entry \(id) of the table of \(head), which the device has, has changed")
    }
  }

  // MARK: Being told

  mutating func noteKick(rang: Bool) throws(RingViolation) {
    try look(isFresh: false)
    let isWanted = wants(
      from: kicked ?? ring.startIndex, to: available, event: ring.availableEvent, flags: ring.usedFlags)
    kicked = available
    try check(.kick, rang || !isWanted, "the device asks for a kick at \(available), and none is sent")
  }

  mutating func noteCall(rang: Bool) throws(RingViolation) {
    try look(isFresh: true)
    let isWanted = wants(from: called ?? ring.startIndex, to: used, event: ring.usedEvent, flags: ring.availableFlags)
    called = used
    try check(.call, rang || !isWanted, "the driver asks for an interrupt at \(used), and none is sent")
  }

  /// What was told last, `old`, and what is there now. The event is passed when it lies between.
  private func wants(from old: UInt16, to new: UInt16, event: UInt16, flags: UInt16) -> Bool {
    guard old != new else { return false }
    if !ring.eventIndex { return flags & 1 == 0 }
    return event &- old < new &- old
  }

  func checkTurnEnd() throws(RingViolation) {
    if let kicked {
      try check(
        .kickAtTurnEnd, kicked == ring.availableIndex,
        "chains up to \(ring.availableIndex) are offered, and kicks were thought of up to \(kicked)")
    }
    if let called {
      try check(
        .callAtTurnEnd, called == ring.usedIndex,
        "chains up to \(ring.usedIndex) are used, and interrupts were thought of up to \(called)")
    }
  }
}
