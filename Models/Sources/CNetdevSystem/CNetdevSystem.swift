// The names are C's.
// swift-format-ignore-file

// In place of CNetdevSystem: its accesses to shared memory, each one step of the explorer.
internal import Explorer

public func netdev_load_relaxed_u16(
  _ address: UnsafeRawPointer, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt16 { WordAt<UInt16>(address).load(.relaxed, Site(file, function, line, column)) }

public func netdev_load_acquire_u16(
  _ address: UnsafeRawPointer, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt16 { WordAt<UInt16>(address).load(.acquiring, Site(file, function, line, column)) }

public func netdev_store_relaxed_u16(
  _ address: UnsafeMutableRawPointer, _ value: UInt16, file: StaticString = #fileID, function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt16>(address).store(value, .relaxed, Site(file, function, line, column)) }

public func netdev_store_release_u16(
  _ address: UnsafeMutableRawPointer, _ value: UInt16, file: StaticString = #fileID, function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt16>(address).store(value, .releasing, Site(file, function, line, column)) }

public func netdev_load_relaxed_u32(
  _ address: UnsafeRawPointer, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt32 { WordAt<UInt32>(address).load(.relaxed, Site(file, function, line, column)) }

public func netdev_load_acquire_u32(
  _ address: UnsafeRawPointer, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt32 { WordAt<UInt32>(address).load(.acquiring, Site(file, function, line, column)) }

public func netdev_store_relaxed_u32(
  _ address: UnsafeMutableRawPointer, _ value: UInt32, file: StaticString = #fileID, function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt32>(address).store(value, .relaxed, Site(file, function, line, column)) }

public func netdev_store_release_u32(
  _ address: UnsafeMutableRawPointer, _ value: UInt32, file: StaticString = #fileID, function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt32>(address).store(value, .releasing, Site(file, function, line, column)) }

public func netdev_load_relaxed_u64(
  _ address: UnsafeRawPointer, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt64 { WordAt<UInt64>(address).load(.relaxed, Site(file, function, line, column)) }

public func netdev_load_acquire_u64(
  _ address: UnsafeRawPointer, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt64 { WordAt<UInt64>(address).load(.acquiring, Site(file, function, line, column)) }

public func netdev_store_relaxed_u64(
  _ address: UnsafeMutableRawPointer, _ value: UInt64, file: StaticString = #fileID, function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt64>(address).store(value, .relaxed, Site(file, function, line, column)) }

public func netdev_store_release_u64(
  _ address: UnsafeMutableRawPointer, _ value: UInt64, file: StaticString = #fileID, function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt64>(address).store(value, .releasing, Site(file, function, line, column)) }

public func netdev_load_relaxed_word(
  _ address: UnsafePointer<UInt>, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt { WordAt<UInt>(address).load(.relaxed, Site(file, function, line, column)) }

public func netdev_load_acquire_word(
  _ address: UnsafePointer<UInt>, file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line,
  column: UInt = #column
) -> UInt { WordAt<UInt>(address).load(.acquiring, Site(file, function, line, column)) }

public func netdev_store_release_word(
  _ address: UnsafeMutablePointer<UInt>, _ value: UInt, file: StaticString = #fileID,
  function: StaticString = #function,
  line: UInt = #line, column: UInt = #column
) { WordAt<UInt>(address).store(value, .releasing, Site(file, function, line, column)) }

public func netdev_compare_exchange_word(
  _ address: UnsafeMutablePointer<UInt>, _ expected: UnsafeMutablePointer<UInt>, _ desired: UInt,
  file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line, column: UInt = #column
) -> Bool {
  WordAt<UInt>(address).compareExchange(&expected.pointee, desired, Site(file, function, line, column))
}

public func netdev_full_fence(
  file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line, column: UInt = #column
) { modelFence(.sequentiallyConsistent, Site(file, function, line, column)) }

public func netdev_acquire_fence(
  file: StaticString = #fileID, function: StaticString = #function, line: UInt = #line, column: UInt = #column
) { modelFence(.acquiring, Site(file, function, line, column)) }

/// No model asks from a loop.
public func netdev_current_loop() -> UnsafeMutableRawPointer? { nil }
public func netdev_current_loop_identity() -> UInt { 0 }
