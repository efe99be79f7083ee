import Glibc
import Testing

@testable import LibeventConcurrency

/// What a person reads of an error number.
@Suite struct ErrorNumberTests {
  @Test(arguments: [(ENODEV, "ENODEV (19): No such device"), (-EMFILE, "EMFILE (24): Too many open files")])
  func `a number has its name and its meaning, whatever its sign`(_ number: CInt, _ text: String) {
    #expect("\(ErrorNumber(number))" == text)
  }

  @Test(arguments: [9999, CInt.min, CInt.max]) func `a number without a name is said as it is`(_ number: CInt) {
    #expect("\(ErrorNumber(number))".contains("error number"))
  }

  @Test func `errors carry the name`() {
    #expect(LoopError.noDescriptor(errno: EMFILE).description.contains("EMFILE"))
  }
}
