package import Virtio

// Rings as drivers and devices use them.

extension DriverRing where Self: ~Copyable {
  /// Takes back up to `max` chains: those of one buffer by the burst, the others one by one. What came before a violation is
  /// returned, and the next call throws it.
  package mutating func reap(into output: UnsafeMutablePointer<UsedBuffer>, max: Int) throws(RingError) -> Int {
    try look()
    var count = 0
    while count < max {
      let start = count
      count += takeSingles(max: max - start) { position, token, written in
        unsafe (output + start + position).initialize(to: UsedBuffer(token: token, written: written))
        return true
      }
      guard count < max, hasOthers else { break }
      do throws(RingError) {
        guard let used = try nextUsed() else { break }
        unsafe (output + count).initialize(to: used)
        count += 1
      } catch {
        if count == 0 { throw error }
        break
      }
    }
    return count
  }

  /// The same into an array.
  package mutating func reap(max: Int) throws(RingError) -> [UsedBuffer] {
    let output = UnsafeMutablePointer<UsedBuffer>.allocate(capacity: Swift.max(max, 1))
    defer { unsafe output.deallocate() }
    let count = try unsafe reap(into: output, max: max)
    return (0..<count).map { unsafe output[$0] }
  }
}

extension DeviceRing where Self: ~Copyable {
  /// Begins a batch and takes up to `max` chains.
  package mutating func take(max: Int, in memory: borrowing GuestMemory) throws(RingError) -> [DescriptorChain] {
    var chains: [DescriptorChain] = []
    guard try begin() else { return chains }
    while chains.count < max, let chain = try next(in: memory) { chains.append(chain) }
    return chains
  }

  /// Begins a batch and serves up to `max` chains, each before the next.
  package mutating func serve(
    max: Int, in memory: borrowing GuestMemory, _ body: (DescriptorChain) -> UInt32
  ) throws(RingError) -> Int {
    var count = 0
    guard try begin() else { return count }
    while count < max, let chain = try next(in: memory) {
      pushUsed(chain, written: body(chain))
      count += 1
    }
    return count
  }

  /// Whether a batch takes a chain, good or bad, or breaks the ring: so it must be where a look has found something.
  package mutating func goesOn(in memory: borrowing GuestMemory) -> Bool {
    let before = taken
    refresh()
    if let chain = take(in: memory) { pushUsed(chain, written: 0) }
    publishUsed()
    return taken != before || isBroken
  }
}
