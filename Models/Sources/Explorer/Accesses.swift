// What a model's code calls in place of the atomics of Swift and of C: each call is one step of the explorer.

/// A value that fits an atomic.
package protocol ModelWord {
  init(modelWord: UInt64)
  var modelWord: UInt64 { get }
}

extension ModelWord where Self: BinaryInteger {
  package init(modelWord: UInt64) { self.init(truncatingIfNeeded: modelWord) }
  package var modelWord: UInt64 { UInt64(truncatingIfNeeded: self) }
}

extension UInt: ModelWord {}
extension UInt16: ModelWord {}
extension UInt32: ModelWord {}
extension UInt64: ModelWord {}
extension Int: ModelWord {}
extension Bool: ModelWord {
  package init(modelWord: UInt64) { self = modelWord != 0 }
  package var modelWord: UInt64 { self ? 1 : 0 }
}

/// The explorer of the model whose code runs.
func explorer() -> Explorer {
  guard let explorer = Explorer.current else { preconditionFailure("only models run here") }
  return explorer
}

enum Access {
  static func load(_ location: Int, _ ordering: Ordering, _ site: Site) -> UInt64 {
    switch explorer().weakening(at: site, .load(ordering)) {
    case .ordering(let weaker): explorer().perform(.load(location, weaker)).value
    case .some(.none): explorer().known(location)
    default: explorer().perform(.load(location, ordering)).value
    }
  }

  static func store(_ location: Int, _ value: UInt64, _ ordering: Ordering, _ site: Site) {
    var ordering = ordering
    if case .ordering(let weaker) = explorer().weakening(at: site, .store(ordering)) { ordering = weaker }
    _ = explorer().perform(.store(location, value, ordering))
  }

  static func update(
    _ location: Int, _ change: Operation.Change, _ operand: UInt64, _ ordering: Ordering, _ site: Site
  ) -> UInt64 {
    switch explorer().weakening(at: site, .update(ordering)) {
    case .split:
      let old = explorer().perform(.load(location, ordering.acquires ? .acquiring : .relaxed)).value
      let new =
        switch change {
        case .exchange: operand
        case .add: old &+ operand
        case .subtract: old &- operand
        }
      _ = explorer().perform(.store(location, new, ordering.releases ? .releasing : .relaxed))
      return old
    case .ordering(let weaker): return explorer().perform(.update(location, change, operand, weaker)).value
    default: return explorer().perform(.update(location, change, operand, ordering)).value
    }
  }

  static func compareExchange(
    _ location: Int, _ expected: UInt64, _ desired: UInt64, _ success: Ordering, _ failure: Ordering, isWeak: Bool,
    _ site: Site
  ) -> (exchanged: Bool, original: UInt64) {
    var (success, failure) = (success, failure)
    switch explorer().weakening(at: site, .update(success)) {
    case .split:
      let old = explorer().perform(.load(location, failure)).value
      guard old == expected else { return (false, old) }
      _ = explorer().perform(.store(location, desired, success.releases ? .releasing : .relaxed))
      return (true, old)
    case .ordering(let weaker):
      success = weaker
      failure = weaker.acquires ? .acquiring : .relaxed
    default: break
    }
    let result = explorer().perform(
      .compareExchange(
        location, expected: expected, desired: desired, success: success, failure: failure, isWeak: isWeak))
    return (result.isDone, result.value)
  }

  static func fence(_ ordering: Ordering, _ site: Site) {
    switch explorer().weakening(at: site, .fence(ordering)) {
    case .ordering(let weaker): explorer().performAtOnce(.fence(weaker))
    case .some(.none): break
    default:
      // Others see only a sequentially consistent one's place.
      if ordering == .sequentiallyConsistent {
        _ = explorer().perform(.fence(ordering))
      } else {
        explorer().performAtOnce(.fence(ordering))
      }
    }
  }
}

// MARK: - In place of Synchronization's

/// In place of `Synchronization.Atomic`.
package final class ModelAtomic<Value: ModelWord>: Sendable {
  private let location: Int

  package init(
    _ initial: Value, _ name: String? = nil, file: StaticString = #fileID, function: StaticString = #function,
    line: UInt = #line
  ) {
    location = explorer().location(
      explorer().objectKey(name ?? Site(file, function, line, 0).description), initially: initial.modelWord)
  }

  /// In traces.
  package func named(_ name: String) -> Self {
    explorer().rename(location, name)
    return self
  }

  package func load(
    ordering: Ordering, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
    column: UInt = #column
  ) -> Value {
    Value(modelWord: Access.load(location, ordering, Site(file, function, line, column)))
  }

  package func store(
    _ value: Value, ordering: Ordering, file: StaticString = #fileID, function: StaticString = #function,
    line: UInt = #line,
    column: UInt = #column
  ) {
    Access.store(location, value.modelWord, ordering, Site(file, function, line, column))
  }

  package func exchange(
    _ value: Value, ordering: Ordering, file: StaticString = #fileID, function: StaticString = #function,
    line: UInt = #line,
    column: UInt = #column
  ) -> Value {
    let site = Site(file, function, line, column)
    return Value(modelWord: Access.update(location, .exchange, value.modelWord, ordering, site))
  }

  package func compareExchange(
    expected: Value, desired: Value, ordering: Ordering, file: StaticString = #fileID,
    function: StaticString = #function,
    line: UInt = #line, column: UInt = #column
  ) -> (exchanged: Bool, original: Value) {
    // Who fails has only read.
    let failure: Ordering =
      ordering == .sequentiallyConsistent ? ordering : ordering.acquires ? .acquiring : .relaxed
    let (exchanged, original) = Access.compareExchange(
      location, expected.modelWord, desired.modelWord, ordering, failure, isWeak: false,
      Site(file, function, line, column))
    return (exchanged, Value(modelWord: original))
  }

  @discardableResult
  package func add(
    _ value: Value, ordering: Ordering, file: StaticString = #fileID, function: StaticString = #function,
    line: UInt = #line,
    column: UInt = #column
  ) -> (oldValue: Value, newValue: Value) {
    let old = Access.update(location, .add, value.modelWord, ordering, Site(file, function, line, column))
    return (Value(modelWord: old), Value(modelWord: old &+ value.modelWord))
  }

  @discardableResult
  package func subtract(
    _ value: Value, ordering: Ordering, file: StaticString = #fileID, function: StaticString = #function,
    line: UInt = #line,
    column: UInt = #column
  ) -> (oldValue: Value, newValue: Value) {
    let old = Access.update(location, .subtract, value.modelWord, ordering, Site(file, function, line, column))
    return (Value(modelWord: old), Value(modelWord: old &- value.modelWord))
  }
}

/// In place of `Synchronization.Mutex`.
package final class ModelMutex<Value>: @unchecked Sendable {
  // Proof of Sendable: the threads of a model are coroutines of one thread.
  private let location: Int
  private let value: UnsafeMutablePointer<Value>

  package init(
    _ initial: consuming Value, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line
  ) {
    location = explorer().location(
      explorer().objectKey("the lock of \(Site(file, function, line, 0))"), initially: 0)
    value = .allocate(capacity: 1)
    value.initialize(to: initial)
  }

  deinit {
    value.deinitialize(count: 1)
    value.deallocate()
  }

  package func withLock<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let ticket = explorer().perform(.lock(location)).value
    // While it is held nobody sees what is done here before the lock is free, and nobody else can take it before.
    defer { explorer().performAtOnce(.store(location, ticket + 2, .releasing)) }
    return try body(&value.pointee)
  }
}

// MARK: - In place of memory and of the kernel

/// A word that is not atomic, and that only one thread may touch at a time: a race is reported.
package final class PlainWord: @unchecked Sendable {
  // Proof of Sendable: the threads of a model are coroutines of one thread.
  private let name: String
  private let cell: Int
  private var stored: UInt64

  package init(_ name: String, _ value: UInt64 = 0) {
    self.name = name
    stored = value
    cell = explorer().makeCell()
  }

  package var value: UInt64 {
    get {
      explorer().readCell(cell, name)
      return stored
    }
    set {
      explorer().writeCell(cell, name)
      stored = newValue
    }
  }
}

/// What one side signals and the other sleeps on: an eventfd.
package final class WakeUp: Sendable {
  private let location: Int

  package init(_ name: String) { location = explorer().location(explorer().objectKey(name), initially: 0) }

  package func signal() { _ = explorer().perform(.signal(location)) }

  /// Sleeps until it is signalled, and takes the signal; false when the model ends instead.
  package func wait() -> Bool { explorer().perform(.wait(location)).isDone }
}

/// A word at an address, as C's atomics see it. What is stored is in memory too, where its only writer may read it plainly.
package struct WordAt<Value: ModelWord & FixedWidthInteger> {
  /// A field that it reaches, or all of it.
  private struct Part {
    let location: Int
    /// Bits by which the field lies above the word's lowest; below zero where the word begins within the field.
    let shift: Int
    /// The field's bits that are the word's.
    let mask: UInt64

    /// What a load of the word has of the field, in its place.
    func out(of field: UInt64) -> UInt64 { Self.moved(field & mask, by: shift) }

    /// The field's value after a store of the word: the rest is what the thread, whose field it is, has written there last.
    func value(in word: UInt64) -> UInt64 {
      Self.moved(word, by: -shift) & mask | explorer().latest(location) & ~mask
    }

    private static func moved(_ value: UInt64, by bits: Int) -> UInt64 {
      bits < 0 ? value >> UInt64(-bits) : value << UInt64(bits)
    }
  }

  private let first: Part
  /// Fields that are accessed after the first one in a load, and before it in a store.
  private let others: [Part]
  private let pointer: UnsafeMutablePointer<Value>

  package init(_ address: UnsafeRawPointer) {
    let size = MemoryLayout<Value>.size
    let (offset, fields) = explorer().fields(of: address, size: size)
    let parts = fields.map { Self.part(address, $0.lowerBound - offset, $0.count) }
    pointer = UnsafeMutableRawPointer(mutating: address).assumingMemoryBound(to: Value.self)
    first = parts.first ?? Self.part(address, 0, size)
    others = parts.isEmpty ? [] : Array(parts[1...])
  }

  /// The field of so many bytes at that distance.
  private static func part(_ address: UnsafeRawPointer, _ distance: Int, _ bytes: Int) -> Part {
    var initial: UInt64 = 0
    for byte in 0..<bytes {
      initial |= UInt64((address + distance + byte).load(as: UInt8.self)) << UInt64(8 * byte)
    }
    let key = explorer().wordKey(address + distance, size: bytes)
    var mask: UInt64 = 0
    for byte in 0..<bytes where (0..<MemoryLayout<Value>.size).contains(distance + byte) {
      mask |= 0xff << UInt64(8 * byte)
    }
    return Part(location: explorer().location(key, initially: initial), shift: 8 * distance, mask: mask)
  }

  /// In traces.
  package func named(_ name: String) { explorer().rename(first.location, name) }

  package func load(_ ordering: Ordering, _ site: Site) -> Value {
    var value = first.out(of: Access.load(first.location, ordering, site))
    for part in others { value |= part.out(of: Access.load(part.location, .relaxed, site)) }
    return Value(modelWord: value)
  }

  package func store(_ value: Value, _ ordering: Ordering, _ site: Site) {
    let word = value.modelWord
    for part in others.reversed() { Access.store(part.location, part.value(in: word), .relaxed, site) }
    Access.store(first.location, first.value(in: word), ordering, site)
    pointer.pointee = value
  }

  /// Of a word without fields.
  package func compareExchange(_ expected: inout Value, _ desired: Value, _ site: Site) -> Bool {
    let (exchanged, original) = Access.compareExchange(
      first.location, expected.modelWord, desired.modelWord, .acquiringAndReleasing, .acquiring, isWeak: true, site)
    if exchanged { pointer.pointee = desired } else { expected = Value(modelWord: original) }
    return exchanged
  }
}

/// A fence.
package func modelFence(_ ordering: Ordering, _ site: Site) { Access.fence(ordering, site) }
