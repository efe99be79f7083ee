internal import PacketFormats

/// The hosts that have sent a datagram, each under a number that becomes its address on the virtual wire.
///
/// The number of senders is bounded, because anybody can send from any number of ports. A sender is known while something
/// passed to or from it within the expiry time; entries expire lazily, when somebody looks at them. When all places are
/// taken, the one idle longest is given to a new sender, but only after a minimum of silence: a flood of new senders must
/// not cut off conversations that are going on. Nothing is allocated after creation. Times are nanoseconds of one
/// monotonic clock. A value, touched by its owner only.
struct SenderTable {
  /// A sender, and the address of ours that it asked: what answers must come from. IPv4 addresses are mapped into IPv6.
  struct Key: Hashable {
    var address: IPv6Address
    var port: UInt16
    /// Zero where the socket has one address.
    var own = IPv6Address.unspecified
    /// The link that link-local addresses are of, else 0.
    var interface: UInt32 = 0
  }

  private struct Entry {
    var key = Key(address: .unspecified, port: 0)
    var lastUse: UInt64 = 0
    /// Neighbours in order of use, -1 at the ends.
    var newer: Int32 = -1
    var older: Int32 = -1
  }

  private var entries: [Entry] = []
  /// Open addressing with linear probing: entry numbers, -1 where free.
  private var buckets: [Int32]
  private let mask: Int
  private let seed: UInt64
  private let expiry: UInt64
  private let minimumIdle: UInt64
  private let capacity: Int
  private var newest: Int32 = -1
  private var oldest: Int32 = -1

  /// - Parameters:
  ///   - capacity: senders known at a time, 1 to 65534.
  ///   - expiry: a sender that was silent so long is unknown.
  ///   - minimumIdle: a sender that was silent so long may be replaced when the table is full.
  init(capacity: Int, expiry: UInt64, minimumIdle: UInt64) {
    self.capacity = min(max(capacity, 1), 65534)
    self.expiry = expiry
    self.minimumIdle = minimumIdle
    // At most half full, so that probing stays short.
    var size = 2
    while size < self.capacity * 2 { size *= 2 }
    mask = size - 1
    buckets = Array(repeating: -1, count: size)
    entries.reserveCapacity(self.capacity)
    // A sender that knew the seed could choose ports that all fall into one bucket.
    seed = UInt64.random(in: 0...UInt64.max)
  }

  /// Senders that have a place, expired ones included.
  var count: Int { entries.count }

  /// The number of the sender of a datagram, which gets one if it has none; nil when all places are taken by senders that
  /// are talking.
  mutating func number(of key: Key, now: UInt64) -> Int? {
    if let bucket = find(key) {
      let number = Int(buckets[bucket])
      touch(number, now)
      return number
    }
    if entries.count < capacity {
      entries.append(Entry(key: key, lastUse: now))
      let number = entries.count - 1
      linkNewest(number)
      insert(key, number)
      return number
    }
    let number = Int(oldest)
    guard idle(number, now) > minimumIdle else { return nil }
    remove(entries[number].key)
    entries[number].key = key
    insert(key, number)
    touch(number, now)
    return number
  }

  /// The sender with this number, if it is known, has this port, and has not expired.
  mutating func sender(_ number: Int, port: UInt16, now: UInt64) -> Key? {
    guard number >= 0, number < entries.count, entries[number].key.port == port, idle(number, now) <= expiry else {
      return nil
    }
    touch(number, now)
    return entries[number].key
  }

  private func idle(_ number: Int, _ now: UInt64) -> UInt64 {
    let lastUse = entries[number].lastUse
    return now > lastUse ? now - lastUse : 0
  }

  // MARK: Order of use

  private mutating func touch(_ number: Int, _ now: UInt64) {
    entries[number].lastUse = now
    guard newest != Int32(number) else { return }
    unlink(number)
    linkNewest(number)
  }

  private mutating func unlink(_ number: Int) {
    let (newer, older) = (entries[number].newer, entries[number].older)
    if newer >= 0 { entries[Int(newer)].older = older } else { newest = older }
    if older >= 0 { entries[Int(older)].newer = newer } else { oldest = newer }
  }

  private mutating func linkNewest(_ number: Int) {
    entries[number].newer = -1
    entries[number].older = newest
    if newest >= 0 { entries[Int(newest)].newer = Int32(number) }
    newest = Int32(number)
    if oldest < 0 { oldest = Int32(number) }
  }

  // MARK: Look-up

  private func home(_ key: Key) -> Int {
    var word = mix(seed ^ key.address.high)
    word = mix(word ^ key.address.low)
    word = mix(word ^ key.own.high ^ UInt64(key.port))
    word = mix(word ^ key.own.low ^ UInt64(key.interface) << 32)
    return Int(truncatingIfNeeded: word) & mask
  }

  /// The finaliser of SplitMix64.
  private func mix(_ value: UInt64) -> UInt64 {
    var word = value
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }

  private func find(_ key: Key) -> Int? {
    var bucket = home(key)
    while buckets[bucket] >= 0 {
      if entries[Int(buckets[bucket])].key == key { return bucket }
      bucket = (bucket + 1) & mask
    }
    return nil
  }

  private mutating func insert(_ key: Key, _ number: Int) {
    var bucket = home(key)
    while buckets[bucket] >= 0 { bucket = (bucket + 1) & mask }
    buckets[bucket] = Int32(number)
  }

  /// Removes without leaving a tombstone: later entries of the same run move up into the gap.
  private mutating func remove(_ key: Key) {
    guard var gap = find(key) else { return }
    var bucket = (gap + 1) & mask
    while buckets[bucket] >= 0 {
      let wanted = home(entries[Int(buckets[bucket])].key)
      // It may move if its home does not lie between the gap and where it stands.
      if (bucket &- wanted) & mask >= (bucket &- gap) & mask {
        buckets[gap] = buckets[bucket]
        gap = bucket
      }
      bucket = (bucket + 1) & mask
    }
    buckets[gap] = -1
  }
}
