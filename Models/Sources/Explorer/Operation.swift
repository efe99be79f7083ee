internal import Glibc

/// Memory orders, by the names of Swift's.
package enum Ordering: Hashable, Sendable {
  case relaxed, acquiring, releasing, acquiringAndReleasing, sequentiallyConsistent

  var acquires: Bool { self != .relaxed && self != .releasing }
  var releases: Bool { self != .relaxed && self != .acquiring }
}

/// Where in the source an access stands.
package struct Site: Hashable, Comparable, Sendable, CustomStringConvertible {
  private let file: StaticString
  private let function: StaticString
  package let line: UInt
  private let column: UInt

  package init(_ file: StaticString, _ function: StaticString, _ line: UInt, _ column: UInt) {
    self.file = file
    self.function = function
    self.line = line
    self.column = column
  }

  // The compiler keeps one copy of a file's name in a module, so its address tells the file.
  package static func == (left: Site, right: Site) -> Bool {
    left.line == right.line && left.column == right.column && left.file.utf8Start == right.file.utf8Start
  }

  package static func < (left: Site, right: Site) -> Bool {
    (left.place, left.line, left.column) < (right.place, right.line, right.column)
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(line &<< 16 | column) }

  /// File and function; lines change too often to be expected.
  package var place: String {
    let name = "\(file)".split(separator: "/").last ?? ""
    return "\(name.split(separator: ".").first ?? "") \("\(function)".split(separator: "(").first ?? "")"
  }

  /// It belongs to a model or to what stands in there for something, not to the code that is studied: its file is no link to the
  /// library's.
  package var isScenery: Bool {
    // This file's own place: Explorer/Operation.swift of the folder that has the modules.
    let sources = "\(#filePath)".split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
    var status = stat()
    guard lstat("\(sources.joined(separator: "/"))/\(file)", &status) == 0 else { return true }
    return status.st_mode & S_IFMT != S_IFLNK
  }

  package var description: String { "\(place), line \(line)" }
}

/// What a thread does with the memory that it shares.
enum Operation {
  enum Change { case exchange, add, subtract }

  case load(Int, Ordering)
  case store(Int, UInt64, Ordering)
  case update(Int, Change, UInt64, Ordering)
  case compareExchange(Int, expected: UInt64, desired: UInt64, success: Ordering, failure: Ordering, isWeak: Bool)
  case fence(Ordering)
  /// Takes a lock: possible while it is free.
  case lock(Int)
  /// Takes what was signalled: possible when something was. As reading an eventfd.
  case wait(Int)
  case signal(Int)

  var location: Int? {
    switch self {
    case .load(let location, _), .store(let location, _, _), .update(let location, _, _, _), .lock(let location),
      .wait(let location), .signal(let location):
      location
    case .compareExchange(let location, _, _, _, _, _): location
    case .fence: nil
    }
  }

  /// A store whose place among others' steps makes no difference, so that it is explored in one place, at once.
  ///
  /// What others do before it they can as well do behind it: their loads may read what was there before, their writes take any
  /// place in the order of modification that they had, and what they know does not depend on it. A sequentially consistent store
  /// has its place among fences, and a signal among waits.
  var comesAtOnce: Bool {
    if case .store(_, _, let ordering) = self { ordering != .sequentiallyConsistent } else { false }
  }
}

/// One order of one access made weaker, or one access made two.
package enum Weakening: Hashable, Sendable, CustomStringConvertible {
  case ordering(Ordering)
  /// Loaded and then stored, by two accesses.
  case split
  /// Left out: of a load, what the thread knows already is taken for what it reads.
  case none

  package var description: String {
    switch self {
    case .ordering(let ordering): "\(ordering)"
    case .split: "load and store"
    case .none: "left out"
    }
  }
}

/// What the explorer has seen done at a place of the source.
package enum AccessKind: Hashable, Sendable {
  case load(Ordering), store(Ordering), update(Ordering), fence(Ordering)

  /// How it is called where weakenings are named.
  package var name: String {
    switch self {
    case .load: "load"
    case .store: "store"
    case .update: "exchange"
    case .fence: "fence"
    }
  }

  /// What it can be weakened to, the least first; a weaker one need not be tried when a stronger one is found.
  package var chains: [[Weakening]] {
    switch self {
    case .load(.sequentiallyConsistent): [[.ordering(.acquiring), .ordering(.relaxed)], [.none]]
    case .load(.acquiring): [[.ordering(.relaxed)], [.none]]
    case .load: [[.none]]
    case .store(.sequentiallyConsistent): [[.ordering(.releasing), .ordering(.relaxed)]]
    case .store(.releasing): [[.ordering(.relaxed)]]
    case .update(.sequentiallyConsistent):
      [[.ordering(.acquiringAndReleasing), .ordering(.acquiring)], [.ordering(.releasing)], [.split]]
    case .update(.acquiringAndReleasing): [[.ordering(.acquiring)], [.ordering(.releasing)], [.split]]
    case .update(.acquiring), .update(.releasing): [[.ordering(.relaxed)], [.split]]
    case .update: [[.split]]
    case .fence(.sequentiallyConsistent): [[.ordering(.acquiringAndReleasing), .none]]
    case .fence: [[.none]]
    default: []
    }
  }
}
