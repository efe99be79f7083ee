/// Packets in order, first in first out. Its memory stays where it is: what is moved in is moved out again, and nothing is counted,
/// copied or looked for on the way.
@safe struct PacketRow: ~Copyable, @unchecked Sendable {
  // Proof of Sendable: the row cannot be copied and has its memory alone, in which there is nothing but what is Sendable.
  private var places: UnsafeMutablePointer<Packet>
  private var capacity: Int
  // What lies between these two is initialized, and nothing else.
  private var head = 0
  private var tail = 0

  /// An empty one, with room for so many to begin with.
  init(capacity: Int) {
    self.capacity = max(1, capacity)
    unsafe places = .allocate(capacity: self.capacity)
  }

  deinit {
    unsafe places.advanced(by: head).deinitialize(count: tail - head)
    unsafe places.deallocate()
  }

  var count: Int { tail - head }
  var isEmpty: Bool { tail == head }

  mutating func append(_ packet: consuming Packet) {
    if tail == capacity { makeRoom() }
    unsafe places.advanced(by: tail).initialize(to: packet)
    tail += 1
  }

  mutating func popFirst() -> Packet? {
    guard head < tail else { return nil }
    let packet = unsafe places.advanced(by: head).move()
    head += 1
    if head == tail { (head, tail) = (0, 0) }
    return packet
  }

  /// The packets of another row follow; it is empty then. Where there are none before them the rows change places.
  mutating func take(_ other: inout PacketRow) {
    if isEmpty { return swap(&self, &other) }
    while let packet = other.popFirst() { append(packet) }
  }

  mutating func removeAll() {
    unsafe places.advanced(by: head).deinitialize(count: tail - head)
    (head, tail) = (0, 0)
  }

  @inline(never) private mutating func makeRoom() {
    let count = count
    // Where most of it is free, what there is moves to the front.
    let wanted = count > capacity / 2 ? 2 * capacity : capacity
    let room = wanted == capacity ? unsafe places : UnsafeMutablePointer<Packet>.allocate(capacity: wanted)
    unsafe room.moveInitialize(from: places.advanced(by: head), count: count)
    if wanted != capacity { unsafe places.deallocate() }
    unsafe places = room
    capacity = wanted
    (head, tail) = (0, count)
  }
}
