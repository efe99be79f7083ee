import InProcess
import Netdev
import NetdevTesting
import Testing
import VirtioDevice
import VirtioNet

/// How the virtio driver of a suite is set up.
struct VirtioVariant: Sendable, CustomTestStringConvertible {
  var testDescription: String
  var placement: InProcessTransport.Placement
  var options = VirtioNetDriver.Options()

  init(
    _ name: String, _ placement: InProcessTransport.Placement,
    _ choose: (inout VirtioNetDriver.Options) -> Void = { _ in }
  ) {
    testDescription = name
    self.placement = placement
    choose(&options)
  }

  static let all = [
    VirtioVariant("inline", .inline),
    VirtioVariant("own loop", .ownLoop()),
    VirtioVariant("inline, no mergeable buffers", .inline) { $0.mergeableBuffers = false },
    VirtioVariant("own loop, no event index", .ownLoop()) { $0.eventIndex = false },
    VirtioVariant("inline, no event index", .inline) { $0.eventIndex = false },
    VirtioVariant("own loop, no indirect descriptors", .ownLoop()) { $0.indirect = false },
    VirtioVariant("own loop, none of them", .ownLoop()) {
      $0.mergeableBuffers = false
      $0.eventIndex = false
      $0.indirect = false
    },
    VirtioVariant("inline, packed", .inline) { $0.packedRings = true },
    VirtioVariant("own loop, packed", .ownLoop()) { $0.packedRings = true },
    VirtioVariant("inline, in order", .inline) { $0.inOrder = true },
    VirtioVariant("own loop, in order", .ownLoop()) { $0.inOrder = true },
    VirtioVariant("inline, packed, in order", .inline) {
      $0.packedRings = true
      $0.inOrder = true
    },
    VirtioVariant("own loop, packed, in order, none of the others", .ownLoop()) {
      $0.packedRings = true
      $0.inOrder = true
      $0.mergeableBuffers = false
      $0.eventIndex = false
      $0.indirect = false
    },
  ]

  /// The driver over the in-process loopback, and what wraps it.
  func conformance(
    patience: Duration = .seconds(60), _ wrap: @escaping @Sendable (VirtioNetDriver) -> any NetworkDriver = { $0 }
  ) -> DriverConformance {
    DriverConformance(patience: patience) { [self] queuePairs in
      let backend = HoldingBackend(pairs: queuePairs, isInline: placement == .inline)
      let transport = InProcessTransport(device: VirtioNetDevice(backend: backend), placement: placement)
      return DriverConformance.Joint(
        driver: wrap(VirtioNetDriver(transport: transport, options: options)), peer: backend)
    }
  }
}

@Suite(.serialized, .timeLimit(.minutes(5))) struct VirtioConformanceTests {
  @Test(arguments: VirtioVariant.all, DriverConformance.Check.allCases)
  func `the virtio driver conforms`(_ variant: VirtioVariant, _ check: DriverConformance.Check) async throws {
    #expect(try await variant.conformance().run(check) == .held)
  }

  @Test func `a driver that holds back is declared so, and what does not apply is said`() async throws {
    var conformance = VirtioVariant.all[1].conformance()
    conformance.lacking = Set(DriverConformance.Capability.allCases)
    let outcomes = try await conformance.runAll()
    #expect(outcomes.map { $0.check } == DriverConformance.Check.allCases)
    let skipped = outcomes.filter { $0.outcome != .held }.map { $0.check }
    #expect(skipped == DriverConformance.Check.allCases.filter { !$0.needs.isEmpty })
    #expect(!skipped.isEmpty)
  }

  @Test func `every check states its rule`() {
    let rules = DriverConformance.Check.allCases.map { $0.rule }
    #expect(rules.allSatisfy { $0.hasSuffix(".") })
    #expect(Set(rules).count == rules.count)
  }

  @Test func `a driver that cannot be made is a violation that says why`() async throws {
    struct NoSuchCard: Error {}
    let conformance = DriverConformance { _ in throw NoSuchCard() }
    let violation = await #expect(throws: DriverConformance.Violation.self) {
      try await conformance.run(.keepsOrder)
    }
    #expect(violation?.check == .keepsOrder)
    #expect(violation?.seen.contains("NoSuchCard") == true)
  }
}
