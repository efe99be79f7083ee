import Foundation
import Glibc
import Netdev
import NetdevTesting
import Synchronization
import Testing

/// Each check can fail: a driver with one fault, which it finds.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FaultTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let check: DriverConformance.Check
    let fault: Fault
    /// What the violation says was seen.
    let finding: String
    var testDescription: String { "\(check.rawValue) finds \(fault.rawValue)" }

    init(_ check: DriverConformance.Check, _ fault: Fault, _ finding: String) {
      self.check = check
      self.fault = fault
      self.finding = finding
    }
  }

  static let cases = [
    Case(.opensAsPromised, .groupAddress, "ff:ff:ff:ff:ff:ff"),
    Case(.resetsAtAnyTime, .failsSecondReset, "reset 2"),
    Case(.framesUnchanged, .damagesLastByte, "is 255 instead of"),
    Case(.frameStart, .assumesHeadroom, ""),
    Case(.severalBuffers, .sendsFirstBuffer, ""),
    Case(.keepsOrder, .swapsReceived, "frame 0 of 250"),
    Case(.burstsOfAllSizes, .losesBehind32, "frames were sent in all"),
    Case(.fullRingWaits, .dropsWhenFull, ""),
    Case(.refusesTooLongFrames, .truncatesTooLong, ""),
    Case(.foreignPackets, .ignoresForeign, "came"),
    Case(.sharedPackets, .sendsSharedOnce, "came"),
    Case(.leavesBuffersAlone, .writesIntoShared, "was changed when it was published"),
    Case(.keptPackets, .writesIntoReceived, "packet 0"),
    Case(.completesOnce, .releasesTwice, "not in flight"),
    Case(.releaseIsAnEvent, .holdsLastRelease, "it never happened"),
    Case(.wakesFromIdle, .neverArms, ""),
    Case(.looksAgainAfterArming, .ignoresArm, ""),
    Case(.sleepsWhenIdle, .saysArmed, "it keeps turning"),
    Case(.cancelledSendIsNotSent, .publishesMore, ""),
    Case(.cancelledRunEnds, .forgetsFrame, ""),
    Case(.closesWithSendsInFlight, .drainsTwice, "not in flight"),
    Case(.brokenEndIsThrown, .failsReset, ""),
    Case(.returnsEveryBuffer, .keepsBuffer, "it kept 0 frames and 1 empty buffers"),
    Case(.quietAfterReset, .writesAfterReset, "is 85 instead of"),
    Case(.opensAgain, .leavesDescriptor, "were open before"),
    Case(.goesOnAfterStarving, .staysStarved, ""),
    Case(.severalPairs, .deafSecondPair, ""),
    Case(.statisticsAgree, .countsHeaders, ""),
    Case(.peerAgrees, .forgetsCounts, "0 and 0"),
  ]

  @Test func `for every check there is a driver that it must find`() {
    #expect(Self.cases.map { $0.check } == DriverConformance.Check.allCases)
    #expect(Set(Self.cases.map { $0.fault }) == Set(Fault.allCases))
  }

  @Test(arguments: cases)
  func `each check can fail`(_ fault: Case) async throws { try await find(fault, in: VirtioVariant.all[1]) }

  @Test(arguments: [Case(.wakesFromIdle, .neverArms, ""), Case(.looksAgainAfterArming, .ignoresArm, "")])
  func `without event indices arming matters just as much`(_ fault: Case) async throws {
    try await find(fault, in: VirtioVariant.all[3])
  }

  private func find(_ fault: Case, in variant: VirtioVariant) async throws {
    let conformance = variant.conformance(patience: .seconds(3)) { FaultyDriver($0, fault.fault) }
    let violation = await #expect(throws: DriverConformance.Violation.self) { try await conformance.run(fault.check) }
    for descriptor in leftOpen.withLock({ left in
      defer { left = [] }
      return left
    }) {
      close(descriptor)
    }
    #expect(violation?.check == fault.check)
    #expect(
      violation?.seen.contains(fault.finding) != false || fault.finding.isEmpty, "\(violation?.description ?? "")")
    if ProcessInfo.processInfo.environment["CONFORMANCE_SHOW"] != nil {
      print("\(fault.check.rawValue): \(violation?.seen ?? "")")
    }
  }
}
