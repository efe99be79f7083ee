/// A set of virtio feature bits, those of the device type and the general ones: 128 bits, for 64 are no longer enough.
///
/// The named bits are the ones of VIRTIO 1.4 §5.1.3 and §6 that a network device may see, and three of vhost's own. What has
/// no name here is not understood by this code and is masked out before anything is accepted (§2.2.1): see `masked`.
@frozen
public struct FeatureSet: Hashable, Sendable {
  /// Bits 0 to 63.
  public var low: UInt64
  /// Bits 64 to 127.
  public var high: UInt64

  /// The set of these bits.
  @inlinable
  public init(low: UInt64, high: UInt64 = 0) {
    self.low = low
    self.high = high
  }

  /// The set of one bit, 0 to 127; the empty set for any other number.
  @inlinable
  public init(bit: Int) {
    low = bit >= 0 && bit < 64 ? 1 << UInt64(bit) : 0
    high = bit >= 64 && bit < 128 ? 1 << UInt64(bit - 64) : 0
  }

  /// The numbers of the bits in this set, ascending.
  public var bits: [Int] {
    (0..<128).filter { contains(FeatureSet(bit: $0)) }
  }
}

extension FeatureSet: SetAlgebra {
  /// The empty set.
  @inlinable
  public init() {
    low = 0
    high = 0
  }

  /// True when every bit of `other` is in this set.
  @inlinable
  public func contains(_ other: FeatureSet) -> Bool {
    low & other.low == other.low && high & other.high == other.high
  }

  /// True when there is no bit.
  @inlinable public var isEmpty: Bool { low | high == 0 }

  /// The bits of either set.
  @inlinable
  public func union(_ other: FeatureSet) -> FeatureSet {
    FeatureSet(low: low | other.low, high: high | other.high)
  }

  /// The bits of both sets.
  @inlinable
  public func intersection(_ other: FeatureSet) -> FeatureSet {
    FeatureSet(low: low & other.low, high: high & other.high)
  }

  /// The bits of one set alone.
  @inlinable
  public func symmetricDifference(_ other: FeatureSet) -> FeatureSet {
    FeatureSet(low: low ^ other.low, high: high ^ other.high)
  }

  /// The bits of this set that are not in `other`.
  @inlinable
  public func subtracting(_ other: FeatureSet) -> FeatureSet {
    FeatureSet(low: low & ~other.low, high: high & ~other.high)
  }

  /// Adds the bits of `other`.
  @inlinable
  public mutating func formUnion(_ other: FeatureSet) { self = union(other) }

  /// Keeps the bits that are in `other` too.
  @inlinable
  public mutating func formIntersection(_ other: FeatureSet) { self = intersection(other) }

  /// Keeps the bits of one set alone.
  @inlinable
  public mutating func formSymmetricDifference(_ other: FeatureSet) { self = symmetricDifference(other) }

  /// Adds `member`, and says whether it was new.
  @inlinable
  @discardableResult
  public mutating func insert(_ member: FeatureSet) -> (inserted: Bool, memberAfterInsert: FeatureSet) {
    let isNew = !contains(member)
    formUnion(member)
    return (isNew, member)
  }

  /// Removes the bits of `member`, and returns those that were there.
  @inlinable
  @discardableResult
  public mutating func remove(_ member: FeatureSet) -> FeatureSet? {
    let present = intersection(member)
    self = subtracting(member)
    return present.isEmpty ? nil : present
  }

  /// Adds `member`, and returns the bits of it that were there.
  @inlinable
  @discardableResult
  public mutating func update(with member: FeatureSet) -> FeatureSet? {
    let present = intersection(member)
    formUnion(member)
    return present.isEmpty ? nil : present
  }
}

extension FeatureSet: CustomStringConvertible {
  /// The bits by their names, those without one by number.
  public var description: String {
    let names = bits.map { bit in Self.named.first { $0.bit == bit }?.name ?? "bit \(bit)" }
    return "[" + names.joined(separator: ", ") + "]"
  }
}
