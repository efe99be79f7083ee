internal import Glibc

/// Memory of an exact length with inaccessible pages around it: whoever leaves it is caught at once, whether the sanitizer
/// watches the access or not. Inline functions written in C are not watched when Swift code uses them.
public final class FencedMemory {
  /// Which end lies at a fence exactly; at the other one there may be up to a page between.
  public enum Edge: Sendable { case start, end }

  /// The first byte: aligned to 16, unless a length that is not a multiple of that meets `Edge.end`; then to `alignment`.
  public let start: UnsafeMutableRawPointer
  /// Bytes.
  public let count: Int
  private let whole: UnsafeMutableRawPointer
  private let wholeCount: Int
  private static let page = 4096

  /// `count` zeros.
  ///
  /// - Parameter alignment: of the first byte; a power of two. Up to as many bytes less one lie between end and fence.
  public init(_ count: Int, edge: Edge = .end, alignment: Int = 16) {
    let pages = (count + Self.page - 1) / Self.page * Self.page
    wholeCount = pages + 2 * Self.page
    guard let mapped = mmap(nil, wholeCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), mapped != MAP_FAILED,
      mprotect(mapped + Self.page, pages, PROT_READ | PROT_WRITE) == 0
    else { violated("there is memory") }
    whole = mapped
    self.count = count
    start = mapped + Self.page + (edge == .end ? (pages - count) / alignment * alignment : 0)
  }

  deinit { munmap(whole, wholeCount) }

  /// From now on it can only be read. Its length should be a whole number of pages.
  public func makeReadOnly() { mprotect(whole + Self.page, wholeCount - 2 * Self.page, PROT_READ) }

  /// The bytes as they are now.
  public var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: start, count: count)) }
}
