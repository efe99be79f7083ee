/// What a monitor has seen of one ring, and what it checks when it looks again.
///
/// It looks now and then, and both sides may have gone on several times in between. So what is new is taken in the one order that
/// an honest ring has: a chain is offered, then used, then may be offered again, it or its descriptors in another one. What may
/// have been written over meanwhile is not judged.
struct RingRecord {
  /// A chain that the device has.
  struct Chain {
    let position: UInt16
    /// Descriptors of the table, with their numbers; none when it came and went between two looks.
    var links: [(id: UInt16, link: RingLink)] = []
    /// Those of its indirect table, with their places in it.
    var entries: [(id: UInt16, link: RingLink)] = []
    /// Bytes that the device may read, and that it may write; nil when that is not known.
    var room: (readable: UInt64, writable: UInt64)?

    /// Its buffers in order.
    var buffers: [(id: UInt16, link: RingLink)] { entries.isEmpty ? links : entries }
  }

  let ring: MonitoredRing
  private(set) var available: UInt16
  private(set) var used: UInt16
  /// By head.
  private var chains: [Chain?]
  /// By descriptor: the head of the chain in flight that it belongs to, and one more.
  private var owners: [Int]
  private(set) var inFlight = 0
  /// Of those in flight, the ones whose heads could not be read any more.
  private var unknown = 0
  /// Where the next look at descriptors in flight begins.
  private var cursor = 0
  /// Index up to which the other side has been told or found not to want it; nil while nobody has said so of this side.
  private var kicked: UInt16?
  private var called: UInt16?
  private let checks: RingChecks

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

  /// Unless `holds`, the clause is broken, as `seen` says.
  private func check(
    _ clause: RingClause, _ holds: Bool, _ seen: @autoclosure () -> String
  ) throws(RingViolation) {
    checks.count(clause)
    if !holds { throw RingViolation(clause: clause, ring: ring.name, seen: seen()) }
  }

  // MARK: Looking

  /// Takes what is new. `isFresh` says that the driver has touched nothing of what it was shown as used since it was shown; a
  /// driver that says when it takes something back never has.
  mutating func look(isFresh: Bool = false) throws(RingViolation) {
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
    if !canRead(offered: offered, returned: returned) { return loseTrack(newAvailable, newUsed) }
    var frame: Int? = 0
    // Of the chains that are used: those that are offered in this look as well have come and gone, and their descriptors may be
    // another's by now.
    var gone: [UInt32: Int] = [:]
    for step in 0..<returned {
      gone[ring.usedElement(at: used &+ UInt16(truncatingIfNeeded: step)).id, default: 0] += 1
    }
    func takeUsed(_ record: inout RingRecord) throws(RingViolation) {
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
      if gone[UInt32(head), default: 0] == 0 {
        // Its descriptors may have been another's until that was used.
        while let owner = try walk(head, &chain) {
          try check(.inFlight, used != newUsed, "a descriptor of the chain of \(head) is in that of \(owner)")
          try takeUsed(&self)
          chain = Chain(position: available)
        }
      }
      chains[head] = chain
      inFlight += 1
      available &+= 1
    }
    while used != newUsed { try takeUsed(&self) }
    if let frame, frame != 0 {
      try check(.receivedBuffers, false, "\(frame) buffers of a frame are not there, and what comes before them is")
    }
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
    (available, used) = (newAvailable, newUsed)
    for place in 0..<ring.size { (chains[place], owners[place]) = (nil, 0) }
  }

  /// Follows a chain that has just been offered; the head of the one in flight that a descriptor of it belongs to, if any does.
  private mutating func walk(_ head: Int, _ chain: inout Chain) throws(RingViolation) -> Int? {
    var id = head
    while true {
      let link = ring.descriptor(id)
      try check(.chainLength, chain.links.count < ring.size, "the chain of \(head) has no end")
      if owners[id] != 0 { return owners[id] - 1 }
      chain.links.append((UInt16(truncatingIfNeeded: id), link))
      if link.isIndirect {
        try follow(link, of: head, into: &chain)
        break
      }
      guard link.hasNext else { break }
      try check(.next, link.next < ring.size, "descriptor \(id) goes on to \(link.next)")
      id = link.next
    }
    try measure(&chain, head)
    for (id, _) in chain.links { owners[Int(id)] = head + 1 }
    if ring.direction == .transmit { try checkTransmitHeader(chain, head) }
    return nil
  }

  /// How much there is to read and to write in a chain.
  private func measure(_ chain: inout Chain, _ head: Int) throws(RingViolation) {
    // One whose table cannot be looked at.
    if chain.entries.isEmpty, chain.links.last?.link.isIndirect == true { return }
    let before = chain.links.last?.link.isIndirect == true ? chain.links.dropLast() : []
    try check(
      .chainLength, before.count + chain.buffers.count <= ring.size, "the chain of \(head) has more links than the ring"
    )
    var room = (readable: UInt64(0), writable: UInt64(0))
    for (_, link) in before + chain.buffers {
      let isInOrder = link.isWritable || room.writable == 0
      try check(.readableFirst, isInOrder, "the chain of \(head) goes on to read behind what is written")
      if link.isWritable { room.writable += UInt64(link.length) } else { room.readable += UInt64(link.length) }
    }
    chain.room = room
  }

  /// The descriptors of an indirect table, in the order of the chain; none when it cannot be looked at.
  private func follow(_ reference: RingLink, of head: Int, into chain: inout Chain) throws(RingViolation) {
    try check(.indirect, ring.indirect, "the chain of \(head) has a table, which was not negotiated")
    try check(.indirect, !reference.hasNext, "the chain of \(head) goes on behind its table")
    let (count, rest) = Int(reference.length).quotientAndRemainder(dividingBy: 16)
    try check(
      .indirect, count > 0 && rest == 0 && count <= ring.size, "the table of \(head) has \(reference.length) bytes")
    guard let place = ring.place?(reference.address, Int(reference.length)) else { return }
    var index = 0
    while true {
      let link = unsafe ring.descriptor(index, of: place)
      try check(.indirect, !link.isIndirect, "the table of \(head) has a table in it")
      try check(.chainLength, chain.entries.count < count, "the table of \(head) has no end")
      chain.entries.append((UInt16(truncatingIfNeeded: index), link))
      guard link.hasNext else { return }
      try check(.next, link.next < count, "entry \(index) of the table of \(head) goes on to \(link.next)")
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
    // The driver has not had it back yet.
    if isFresh { try checkUnchanged(chain, Int(id)) }
    chains[Int(id)] = nil
    for (descriptor, _) in chain.links { owners[Int(descriptor)] = 0 }
    inFlight -= 1
    used &+= 1
    if ring.direction == .receive, isFresh { try checkReceived(chain, id, length, &frame, left: Int(end &- used)) }
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
      let isSame = ring.descriptor(Int(id)) == link
      try check(.changed, isSame, "descriptor \(id) of the chain of \(head), which the device has, has changed")
    }
    guard let reference = chain.links.last?.link, reference.isIndirect, !chain.entries.isEmpty,
      let place = ring.place?(reference.address, Int(reference.length))
    else { return }
    for (id, link) in chain.entries {
      let isSame = unsafe ring.descriptor(Int(id), of: place) == link
      try check(.changed, isSame, "entry \(id) of the table of \(head), which the device has, has changed")
    }
  }

  // MARK: Being told

  /// The driver has asked whether the device wants to know, and has rung or not.
  mutating func noteKick(rang: Bool) throws(RingViolation) {
    try look()
    let isWanted = wants(
      from: kicked ?? ring.startIndex, to: available, event: ring.availableEvent, flags: ring.usedFlags)
    kicked = available
    try check(.kick, rang || !isWanted, "the device asks for a kick at \(available), and none is sent")
  }

  /// The device has asked whether the driver wants to know, and has interrupted or not.
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

  /// A turn is over: who has published something has looked whether the other side wants to know.
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

// MARK: - What headers say

extension RingRecord {
  /// Bytes of the header before each frame, as far as this library negotiates it (VIRTIO 1.4 §5.1.9).
  private static let headerBytes = 12

  /// The header, from as many buffers as it lies in; nil when it is not whole, or cannot be looked at.
  private func header(_ chain: Chain) -> [UInt8]? {
    var bytes: [UInt8] = []
    for (_, link) in chain.buffers {
      let count = min(Int(link.length), Self.headerBytes - bytes.count)
      guard count > 0 else { continue }
      guard let place = ring.place?(link.address, count) else { return nil }
      let piece = unsafe Array(UnsafeRawBufferPointer(start: place, count: count))
      bytes += piece
    }
    return bytes.count == Self.headerBytes ? bytes : nil
  }

  private func checkTransmitHeader(_ chain: Chain, _ head: Int) throws(RingViolation) {
    if let readable = chain.room?.readable {
      let isWhole = readable >= Self.headerBytes
      try check(.transmitHeader, isWhole, "the frame of \(head) has \(readable) bytes, which is less than its header")
    }
    guard let header = header(chain) else { return }
    // DATA_VALID and RSC_INFO are a device's to say.
    try check(.transmitHeader, header[0] & ~1 == 0, "the frame of \(head) has flags \(header[0])")
    let buffers = Int(header[10]) | Int(header[11]) << 8
    try check(.transmitHeader, buffers == 0, "the frame of \(head) says \(buffers) buffers")
  }

  private func checkReceived(
    _ chain: Chain, _ id: UInt32, _ length: UInt32, _ frame: inout Int?, left: Int
  ) throws(RingViolation) {
    // A chain that is returned empty has no frame in it.
    guard frame == 0, length > 0, let header = header(chain) else {
      if length > 0 || frame != 0 { skipBuffer(&frame) }
      return
    }
    try check(.receivedBuffers, length >= Self.headerBytes, "a frame of \(length) bytes has no header")
    let buffers = Int(header[10]) | Int(header[11]) << 8
    try check(
      .receivedBuffers, buffers >= 1 && (ring.mergedBuffers || buffers == 1),
      "the frame in chain \(id) says that it lies in \(buffers) buffers")
    try check(
      .receivedBuffers, buffers - 1 <= left,
      "the frame in chain \(id) lies in \(buffers) buffers, and \(left + 1) are shown")
    frame = buffers - 1
  }

  /// Goes on behind a buffer that is not looked at. Where a frame may begin in it, nobody knows of how many buffers that is.
  private func skipBuffer(_ frame: inout Int?) {
    guard let rest = frame else { return }
    frame = rest > 0 ? rest - 1 : nil
  }
}
