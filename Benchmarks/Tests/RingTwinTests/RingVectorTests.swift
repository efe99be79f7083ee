import Testing

/// Swift's rings and their twin in C do the same work: what is counted against one another is the same thing.
@Suite struct RingVectorTests {
  @Test("Vectors on the Swift ring", arguments: ringVectors)
  func swiftRing(vector: RingVector) throws {
    try run(vector, on: SwiftRing(vector))
  }

  @Test("Vectors on the C ring", arguments: ringVectors)
  func cRing(vector: RingVector) throws {
    try run(vector, on: CRing(vector))
  }

  private func run(_ vector: RingVector, on ring: some RingUnderTest) throws {
    for (number, (step, expected)) in vector.steps.enumerated() {
      let outcome = ring.perform(step)
      #expect(outcome == expected, "step \(number): \(step)")
    }
    if let memory = vector.memory { #expect(abridged(ring.bytes) == memory) }
  }

  @Test("A long seeded run: the same outcome of every step, and the same bytes", arguments: [0, 1, 2, 3] as [UInt64])
  func together(seed: UInt64) throws {
    let vector = RingVector(
      name: "seed \(seed)", size: seed & 1 == 0 ? 8 : 64, start: 65000, eventIndex: seed < 2, steps: [])
    let swift = try SwiftRing(vector)
    let twin = try CRing(vector)
    var state = seed &* 0x9e37_79b9_7f4a_7c15 &+ 1
    func random(_ bound: UInt64) -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return (state >> 33) % bound
    }
    var token: UInt64 = 0
    var held: [RingOutcome.Chain] = []
    for number in 0..<40_000 {
      let step: RingStep
      switch random(12) {
      case 0, 1:
        step = .add(
          address: vectorBase + random(256), length: UInt32(random(2048)) + 1, writable: random(2) == 0, token: token)
        token += 1
      case 2:
        step = .addChain(
          readable: (0..<random(3)).map { _ in UInt32(random(100)) + 1 },
          writable: (0...random(3)).map { _ in UInt32(random(100)) + 1 }, token: token)
        token += 1
      case 3: step = .publish
      case 4: step = .needsKick
      case 5: step = .pop(max: Int(random(10)) + 1)
      case 6, 7:
        guard !held.isEmpty else { continue }
        let chain = held.remove(at: Int(random(UInt64(held.count))))
        step = .use(head: chain.head, written: UInt32(random(UInt64(chain.writable.reduce(0, +) + 1))))
      case 8: step = .publishUsed
      case 9: step = .needsCall
      case 10: step = .reap(max: Int(random(10)) + 1)
      default: step = random(2) == 0 ? .armKick : .armInterrupt(after: Int(random(9)))
      }
      let outcome = swift.perform(step)
      let other = twin.perform(step)
      guard outcome == other else {
        Issue.record("step \(number), \(step): Swift \(outcome), C \(other)")
        return
      }
      if case .chains(let chains) = outcome { held += chains }
      if number % 100 == 0, swift.bytes != twin.bytes {
        Issue.record("the memory differs after step \(number), \(step)")
        return
      }
    }
    #expect(swift.bytes == twin.bytes)
    #expect(token > 5000)
  }
}
