import Explorer

/// A program of a few accesses whose outcomes under C11 are known: what proves the explorer.
struct Litmus {
  /// Two words, all 0 at first, and what the loads read.
  final class Words {
    let x = ModelAtomic(0, "x")
    let y = ModelAtomic(0, "y")
    var read: [Int]

    init(_ count: Int) { read = .init(repeating: 0, count: count) }
  }

  let name: String
  /// What the loads read, in the order of their numbers.
  let allowed: Set<String>
  let loads: Int
  /// Adds the last values of x and y to what is read.
  var seesEnd = false
  let threads: [(Words) -> Void]

  init(
    _ name: String, _ loads: Int, seesEnd: Bool = false, allowed: String, _ threads: ((Words) -> Void)...
  ) {
    self.name = name
    self.loads = loads
    self.seesEnd = seesEnd
    self.allowed = Set(allowed.split(separator: " ").map(String.init))
    self.threads = threads
  }

  /// The outcomes that the explorer finds, or what is wrong.
  func run() -> (outcomes: Set<String>, finding: Finding?) {
    var outcomes: Set<String> = []
    let model = Model(name) { explorer in
      let words = Words(loads)
      for (index, thread) in threads.enumerated() { explorer.thread("thread \(index)") { thread(words) } }
      return {
        var read = words.read
        if seesEnd { read += [words.x.load(ordering: .relaxed), words.y.load(ordering: .relaxed)] }
        outcomes.insert(read.map(String.init).joined())
      }
    }
    let finding = Explorer().explore(model)
    return (outcomes, finding)
  }
}

private func fence(_ ordering: Ordering) { modelFence(ordering, Site(#fileID, #function, #line, #column)) }

extension Litmus {
  static var all: [Litmus] {
    storeBuffering + messagePassing + loadBuffering + coherence + independentReads + sequences
      + fences
  }

  private static func buffering(
    _ name: String, _ store: Ordering, _ load: Ordering, _ between: Ordering?, _ allowed: String
  ) -> Litmus {
    Litmus(
      "store buffering, \(name)", 2, allowed: allowed,
      {
        $0.x.store(1, ordering: store)
        if let between { fence(between) }
        $0.read[0] = $0.y.load(ordering: load)
      },
      {
        $0.y.store(1, ordering: store)
        if let between { fence(between) }
        $0.read[1] = $0.x.load(ordering: load)
      })
  }

  private static var storeBuffering: [Litmus] {
    [
      buffering("relaxed", .relaxed, .relaxed, nil, "00 01 10 11"),
      buffering("release and acquire", .releasing, .acquiring, nil, "00 01 10 11"),
      buffering("fences that acquire and release", .relaxed, .relaxed, .acquiringAndReleasing, "00 01 10 11"),
      buffering("full fences", .relaxed, .relaxed, .sequentiallyConsistent, "01 10 11"),
      buffering("sequentially consistent", .sequentiallyConsistent, .sequentiallyConsistent, nil, "01 10 11"),
      buffering("sequentially consistent stores alone", .sequentiallyConsistent, .acquiring, nil, "00 01 10 11"),
      Litmus(
        "store buffering, one full fence", 2, allowed: "00 01 10 11",
        {
          $0.x.store(1, ordering: .relaxed)
          fence(.sequentiallyConsistent)
          $0.read[0] = $0.y.load(ordering: .relaxed)
        },
        {
          $0.y.store(1, ordering: .relaxed)
          $0.read[1] = $0.x.load(ordering: .relaxed)
        }),
      // An exchange of each word, and no order between the two.
      Litmus(
        "store buffering, exchanges", 2, allowed: "00 01 10 11",
        {
          _ = $0.x.exchange(1, ordering: .acquiringAndReleasing)
          $0.read[0] = $0.y.load(ordering: .acquiring)
        },
        {
          _ = $0.y.exchange(1, ordering: .acquiringAndReleasing)
          $0.read[1] = $0.x.load(ordering: .acquiring)
        }),
      // A full fence on one side, sequentially consistent accesses on the other.
      Litmus(
        "store buffering, a fence and accesses", 2, allowed: "01 10 11",
        {
          $0.x.store(1, ordering: .relaxed)
          fence(.sequentiallyConsistent)
          $0.read[0] = $0.y.load(ordering: .relaxed)
        },
        {
          $0.y.store(1, ordering: .sequentiallyConsistent)
          $0.read[1] = $0.x.load(ordering: .sequentiallyConsistent)
        }),
    ]
  }

  private static func passing(
    _ name: String, _ store: Ordering, _ load: Ordering, _ before: Ordering? = nil, _ after: Ordering? = nil,
    allowed: String
  ) -> Litmus {
    Litmus(
      "message passing, \(name)", 2, allowed: allowed,
      {
        $0.x.store(1, ordering: .relaxed)
        if let before { fence(before) }
        $0.y.store(1, ordering: store)
      },
      {
        $0.read[0] = $0.y.load(ordering: load)
        if let after { fence(after) }
        $0.read[1] = $0.x.load(ordering: .relaxed)
      })
  }

  private static var messagePassing: [Litmus] {
    [
      passing("relaxed", .relaxed, .relaxed, allowed: "00 01 10 11"),
      passing("release alone", .releasing, .relaxed, allowed: "00 01 10 11"),
      passing("acquire alone", .relaxed, .acquiring, allowed: "00 01 10 11"),
      passing("release and acquire", .releasing, .acquiring, allowed: "00 01 11"),
      passing("release and an acquiring fence", .releasing, .relaxed, nil, .acquiring, allowed: "00 01 11"),
      passing("a releasing fence and acquire", .relaxed, .acquiring, .releasing, allowed: "00 01 11"),
      passing("two fences", .relaxed, .relaxed, .releasing, .acquiring, allowed: "00 01 11"),
      passing("the wrong fences", .relaxed, .relaxed, .acquiring, .releasing, allowed: "00 01 10 11"),
      passing("full fences", .relaxed, .relaxed, .sequentiallyConsistent, .sequentiallyConsistent, allowed: "00 01 11"),
      passing("sequentially consistent", .sequentiallyConsistent, .sequentiallyConsistent, allowed: "00 01 11"),
      Litmus(
        "message passing over a third thread", 3, allowed: "000 001 100 101 111",
        { $0.x.store(1, ordering: .relaxed) },
        {
          $0.read[0] = $0.x.load(ordering: .relaxed)
          $0.y.store($0.read[0], ordering: .releasing)
        },
        {
          $0.read[1] = $0.y.load(ordering: .acquiring)
          $0.read[2] = $0.x.load(ordering: .relaxed)
        }),
      // A store that comes after what it has read: "S".
      Litmus(
        "a store after a message", 1, seesEnd: true, allowed: "011 021 111",
        {
          $0.x.store(2, ordering: .relaxed)
          $0.y.store(1, ordering: .releasing)
        },
        {
          $0.read[0] = $0.y.load(ordering: .acquiring)
          $0.x.store(1, ordering: .relaxed)
        }),
    ]
  }

  // C11 allows 11 here to relaxed accesses; this machine does nothing before what stands before it, so it never shows it.
  private static var loadBuffering: [Litmus] {
    [
      Litmus(
        "load buffering, relaxed", 2, allowed: "00 01 10",
        {
          $0.read[0] = $0.x.load(ordering: .relaxed)
          $0.y.store(1, ordering: .relaxed)
        },
        {
          $0.read[1] = $0.y.load(ordering: .relaxed)
          $0.x.store(1, ordering: .relaxed)
        })
    ]
  }

  private static var coherence: [Litmus] {
    [
      Litmus(
        "coherence of two reads", 2, allowed: "00 01 02 11 12 22",
        {
          $0.x.store(1, ordering: .relaxed)
          $0.x.store(2, ordering: .relaxed)
        },
        {
          $0.read[0] = $0.x.load(ordering: .relaxed)
          $0.read[1] = $0.x.load(ordering: .relaxed)
        }),
      // The orders of modification of two words need not agree with the orders of both threads.
      Litmus(
        "two words written twice", 0, seesEnd: true, allowed: "11 12 21 22",
        {
          $0.x.store(1, ordering: .relaxed)
          $0.y.store(2, ordering: .relaxed)
        },
        {
          $0.y.store(1, ordering: .relaxed)
          $0.x.store(2, ordering: .relaxed)
        }),
      Litmus(
        "two words written twice, full fences", 0, seesEnd: true, allowed: "12 21 22",
        {
          $0.x.store(1, ordering: .relaxed)
          fence(.sequentiallyConsistent)
          $0.y.store(2, ordering: .relaxed)
        },
        {
          $0.y.store(1, ordering: .relaxed)
          fence(.sequentiallyConsistent)
          $0.x.store(2, ordering: .relaxed)
        }),
      Litmus(
        "two adders", 2, seesEnd: true, allowed: "0120 1020",
        { $0.read[0] = $0.x.add(1, ordering: .relaxed).oldValue },
        { $0.read[1] = $0.x.add(1, ordering: .relaxed).oldValue }),
      Litmus(
        "two who load and store", 2, seesEnd: true, allowed: "0010 0120 1020",
        {
          $0.read[0] = $0.x.load(ordering: .acquiring)
          $0.x.store($0.read[0] + 1, ordering: .releasing)
        },
        {
          $0.read[1] = $0.x.load(ordering: .acquiring)
          $0.x.store($0.read[1] + 1, ordering: .releasing)
        }),
      // A failing exchange is a load: it may be of an old value.
      Litmus(
        "a compare and exchange that fails", 2, allowed: "00 01 10 11 02 12",
        {
          $0.x.store(1, ordering: .relaxed)
          $0.x.store(2, ordering: .relaxed)
          $0.y.store(1, ordering: .relaxed)
        },
        {
          $0.read[0] = $0.y.load(ordering: .relaxed)
          $0.read[1] = $0.x.compareExchange(expected: 7, desired: 8, ordering: .relaxed).original
        }),
    ]
  }

  private static func readers(
    _ name: String, _ store: Ordering, _ load: Ordering, _ between: Ordering?, isOrdered: Bool
  ) -> Litmus {
    var allowed: Set<String> = []
    for number in 0..<16 {
      allowed.insert(String(String(number + 16, radix: 2).dropFirst()))
    }
    if isOrdered { allowed.remove("1010") }
    return Litmus(
      "independent reads, \(name)", 4, allowed: allowed.joined(separator: " "),
      { $0.x.store(1, ordering: store) }, { $0.y.store(1, ordering: store) },
      {
        $0.read[0] = $0.x.load(ordering: load)
        if let between { fence(between) }
        $0.read[1] = $0.y.load(ordering: load)
      },
      {
        $0.read[2] = $0.y.load(ordering: load)
        if let between { fence(between) }
        $0.read[3] = $0.x.load(ordering: load)
      })
  }

  private static var independentReads: [Litmus] {
    [
      readers("relaxed", .relaxed, .relaxed, nil, isOrdered: false),
      readers("release and acquire", .releasing, .acquiring, nil, isOrdered: false),
      readers("full fences", .relaxed, .relaxed, .sequentiallyConsistent, isOrdered: true),
      readers("sequentially consistent", .sequentiallyConsistent, .sequentiallyConsistent, nil, isOrdered: true),
      readers("sequentially consistent stores, acquire", .sequentiallyConsistent, .acquiring, nil, isOrdered: false),
    ]
  }

  private static var sequences: [Litmus] {
    [
      Litmus(
        "a release sequence over an addition", 3, allowed: "000 001 010 011 100 101 111 121",
        {
          $0.x.store(1, ordering: .relaxed)
          $0.y.store(1, ordering: .releasing)
        },
        { $0.read[0] = $0.y.add(1, ordering: .relaxed).oldValue },
        {
          $0.read[1] = $0.y.load(ordering: .acquiring)
          $0.read[2] = $0.x.load(ordering: .relaxed)
        }),
      // Since C++20 a later relaxed store of the same thread is no part of it.
      Litmus(
        "a release sequence that a store ends", 2, allowed: "00 01 11 20 21",
        {
          $0.x.store(1, ordering: .relaxed)
          $0.y.store(1, ordering: .releasing)
          $0.y.store(2, ordering: .relaxed)
        },
        {
          $0.read[0] = $0.y.load(ordering: .acquiring)
          $0.read[1] = $0.x.load(ordering: .relaxed)
        }),
    ]
  }

  private static func storesAndRead(_ name: String, _ between: Ordering, _ allowed: String) -> Litmus {
    Litmus(
      "two stores and a read, \(name)", 1, seesEnd: true, allowed: allowed,
      {
        $0.x.store(1, ordering: .relaxed)
        fence(between)
        $0.y.store(1, ordering: .relaxed)
      },
      {
        $0.y.store(2, ordering: .relaxed)
        fence(between)
        $0.read[0] = $0.x.load(ordering: .relaxed)
      })
  }

  private static var fences: [Litmus] {
    [
      storesAndRead("full fences", .sequentiallyConsistent, "011 111 112"),
      storesAndRead("fences that acquire and release", .acquiringAndReleasing, "011 012 111 112"),
    ]
  }
}
