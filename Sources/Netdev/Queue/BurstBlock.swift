/// Room for one burst of frames: 64 entries that belong to whoever holds the block.
@safe @frozen @usableFromInline
struct BurstBlock {
  @usableFromInline static var capacity: Int { 64 }
  @usableFromInline var count: Int
  @usableFromInline let entries: UnsafeMutablePointer<TransmitEntry>
  /// When the frames were taken from the device, by the loop's clock; 0 for frames that were not received.
  var time: UInt64
  /// The next one, while this one is idle.
  var next: UnsafeMutablePointer<BurstBlock>?

  /// Room for `capacity` frames: 64 unless it is to hold more than a burst.
  static func make(capacity: Int = Self.capacity) -> UnsafeMutablePointer<BurstBlock> {
    let block = UnsafeMutablePointer<BurstBlock>.allocate(capacity: 1)
    let entries = UnsafeMutablePointer<TransmitEntry>.allocate(capacity: capacity)
    unsafe entries.initialize(repeating: TransmitEntry(rawValue: 0), count: capacity)
    unsafe block.initialize(to: BurstBlock(count: 0, entries: entries))
    return unsafe block
  }

  @usableFromInline init(count: Int, entries: UnsafeMutablePointer<TransmitEntry>) {
    self.count = count
    unsafe self.entries = entries
    time = 0
    unsafe next = nil
  }

  static func free(_ block: UnsafeMutablePointer<BurstBlock>) {
    unsafe block.pointee.entries.deallocate()
    unsafe block.deallocate()
  }
}
