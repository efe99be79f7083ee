internal import Virtio

/// What a monitor has seen of a packed ring.
///
/// Both sides write over the same descriptors, so it sees only what there is when it looks: of what a driver offered and a device
/// used between two looks nothing is left but the used descriptors, and of what was used before something was offered there, nothing.
/// Whoever watches looks before and after each publication of a driver.
struct PackedRecord: RingRecord {
  /// A chain that the device has.
  private struct Chain {
    /// Descriptors of the ring.
    let places: Int
    let buffers: [WatchedBuffer]
    /// Bytes that the device may write; nil when that is not known.
    let writable: UInt64?
  }

  let ring: MonitoredRing
  let checks: RingChecks
  /// Where the driver goes on, and where the device does.
  private var next: PackedPlace
  private var used: PackedPlace
  /// By buffer id.
  private var chains: [UInt16: Chain] = [:]
  /// With IN_ORDER: ids in flight, the oldest first.
  private var order: [UInt16] = []
  /// By place, of those between `used` and `next`: what the driver wrote there.
  private var links: [PackedLink?]
  /// Descriptors made available, and descriptors behind which the device has gone.
  private var offered = 0
  private var returned = 0
  /// Where the next look at descriptors in flight begins.
  private var cursor = 0
  /// How many of those had been offered when the other side was told last, or found not to want it; nil while nobody has said so
  /// of this side.
  private var kicked: Int?
  private var called: Int?

  /// Descriptors in flight that one look compares.
  private static let compared = 8

  init(_ ring: MonitoredRing, _ checks: RingChecks) {
    self.ring = ring
    self.checks = checks
    next = PackedPlace(ring.startIndex)
    used = next
    links = Array(repeating: nil, count: ring.size)
  }

  /// Descriptors between the device and the driver.
  private var held: Int { offered - returned }

  // MARK: Looking

  mutating func look(isFresh: Bool) throws(RingViolation) {
    try checkWish(ring.driverWish, .driverFlags, "driver")
    try checkWish(ring.deviceWish, .deviceFlags, "device")
    var frame: Int? = 0
    while true {
      let isOffered = try takeOffered()
      let isUsed = try takeUsed(&frame, isFresh: isFresh || ring.saysWhatItTakes)
      if !isOffered, !isUsed { break }
    }
    try checkWhole(frame)
    try compare()
  }

  /// The next chain that the driver has made available; false when there is none.
  private mutating func takeOffered() throws(RingViolation) -> Bool {
    guard ring.packedLink(next.place).isAvailable(next.wrap) else { return false }
    let first = next.place
    try check(
      .availableIndex, held < ring.size, "descriptor \(first) is made available, and the device has all of them")
    var place = next
    var links: [PackedLink] = []
    var buffers: [WatchedBuffer] = []
    while true {
      let link = ring.packedLink(place.place)
      let hasRoom = held + links.count < ring.size
      try check(.chainLength, hasRoom, "the chain from descriptor \(first) on has no end, or no room")
      let isAvailable = link.isAvailable(place.wrap)
      try check(
        .next, isAvailable, "the chain of descriptor \(first) goes on to \(place.place), which is not available")
      links.append(link)
      place.advance(of: ring.size)
      if link.isIndirect {
        let isAlone = links.count == 1 && !link.hasNext
        try check(.indirect, isAlone, "the chain from descriptor \(first) on has a table among other buffers")
        buffers = try table(link)
        break
      }
      buffers.append(link.buffer)
      guard link.hasNext else { break }
    }
    // One whose table cannot be looked at has none.
    var bytes: (readable: UInt64, writable: UInt64)?
    if !buffers.isEmpty { bytes = try room(in: buffers, of: first) }
    // The last one has the chain's id.
    let id = links[links.count - 1].id
    try check(
      .inFlight, chains[id] == nil, "the chain from descriptor \(first) on has id \(id), and the device has one of it")
    chains[id] = Chain(places: links.count, buffers: buffers, writable: bytes?.writable)
    if ring.inOrder { order.append(id) }
    for link in links {
      self.links[next.place] = link
      next.advance(of: ring.size)
    }
    offered += links.count
    try checkTransmitHeader(buffers, readable: bytes?.readable, of: Int(id))
    return true
  }

  /// The buffers of an indirect table; none when it cannot be looked at.
  private func table(_ reference: PackedLink) throws(RingViolation) -> [WatchedBuffer] {
    let count = try tableCount(reference.length, of: next.place)
    guard let place = ring.place?(reference.address, Int(reference.length)) else { return [] }
    var buffers: [WatchedBuffer] = []
    for index in 0..<count {
      let link = unsafe ring.packedLink(index, of: place)
      let isPlain = link.flags & ~2 == 0
      try check(.indirect, isPlain, "entry \(index) of the table at descriptor \(next.place) has flags \(link.flags)")
      buffers.append(link.buffer)
    }
    return buffers
  }

  /// The next used descriptor, with all chains that it stands for; false when there is none.
  private mutating func takeUsed(_ frame: inout Int?, isFresh: Bool) throws(RingViolation) -> Bool {
    let link = ring.packedLink(used.place)
    guard link.isUsed(used.wrap) else { return false }
    try check(.usedIndex, held > 0, "descriptor \(used.place) is used, and the device has none")
    let last = chains[link.id]
    try check(.usedChain, last != nil, "chain \(link.id) is used, and the device does not have it")
    // Without WRITE the length means nothing.
    let length = link.isWritable ? UInt64(link.length) : 0
    if let writable = last?.writable {
      try check(.usedLength, length <= writable, "chain \(link.id) is used with \(length) bytes, and has \(writable)")
    }
    // What a batch skips was used completely.
    while ring.inOrder, let oldest = order.first, oldest != link.id {
      try giveBack(oldest, length: chains[oldest]?.writable ?? 0, &frame, isFresh: isFresh)
    }
    try giveBack(link.id, length: length, &frame, isFresh: isFresh)
    return true
  }

  private mutating func giveBack(
    _ id: UInt16, length: UInt64, _ frame: inout Int?, isFresh: Bool
  ) throws(RingViolation) {
    guard let chain = chains.removeValue(forKey: id) else { return }
    if ring.inOrder { order.removeFirst() }
    for _ in 0..<chain.places {
      links[used.place] = nil
      used.advance(of: ring.size)
    }
    returned += chain.places
    if isFresh { try checkReceived(chain.buffers, of: Int(id), length: length, &frame) }
  }

  // MARK: What is there

  /// Off_wrap, then flags (VIRTIO 1.4 §2.8.14).
  private func checkWish(_ word: UInt32, _ clause: RingClause, _ side: String) throws(RingViolation) {
    let (flags, place) = (word >> 16, Int(word & 0x7fff))
    let isRight =
      switch flags {
      case 0, 1: true
      case 2: ring.eventIndex && place < ring.size
      default: false
      }
    try check(clause, isRight, "the \(side)'s flags are \(flags), its descriptor \(place)")
  }

  /// Some of what the device has is as the driver wrote it, or used in its turn: the next few each time.
  ///
  /// The device writes used descriptors before it shows the first of them, and never an address.
  private mutating func compare() throws(RingViolation) {
    guard held > 0 else { return }
    for _ in 0..<min(Self.compared, ring.size) {
      let place = cursor
      cursor = (cursor + 1) % ring.size
      guard let link = links[place] else { continue }
      let now = ring.packedLink(place)
      let wrap = place >= used.place ? used.wrap : !used.wrap
      let isUsed = now.address == link.address && (place == used.place || now.isUsed(wrap))
      try check(.changed, now == link || isUsed, "descriptor \(place), which the device has, has changed")
    }
  }

  // MARK: Being told

  mutating func noteKick(rang: Bool) throws(RingViolation) {
    try look(isFresh: false)
    let isWanted = next.fulfils(ring.deviceWish, by: offered - (kicked ?? 0), of: ring.size)
    kicked = offered
    try check(
      .kick, rang || !isWanted, "the device asks for a kick before descriptor \(next.place), and none is sent")
  }

  mutating func noteCall(rang: Bool) throws(RingViolation) {
    try look(isFresh: true)
    let isWanted = used.fulfils(ring.driverWish, by: returned - (called ?? 0), of: ring.size)
    called = returned
    try check(
      .call, rang || !isWanted, "the driver asks for an interrupt before descriptor \(used.place), and none is sent")
  }

  func checkTurnEnd() throws(RingViolation) {
    if let kicked {
      try check(
        .kickAtTurnEnd, kicked == offered,
        "descriptors before \(next.place) are available, and nobody has thought of a kick")
    }
    if let called {
      try check(
        .callAtTurnEnd, called == returned,
        "descriptors before \(used.place) are used, and nobody has thought of an interrupt")
    }
  }
}
