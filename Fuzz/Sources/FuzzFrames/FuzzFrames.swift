import FuzzSupport

// Frames of anybody on the link: every decoder, every text parser, and the responder that answers in place.

/// Before the first input.
@c(LLVMFuzzerInitialize)
public func initialize(_ count: UnsafeMutableRawPointer, _ arguments: UnsafeMutableRawPointer) -> CInt {
  Seeds.writeIfAsked(frameSeeds)
  return 0
}

/// One input: the first byte says what is done with the rest.
@c(LLVMFuzzerTestOneInput)
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var input = InputReader(bytes, count)
  let control = input.byte()
  switch control & 3 {
  case 0, 1: answer(&input, repairs: control & 4 != 0, manyAddresses: control & 8 != 0)
  case 2:
    var frame = input.rest()
    if control & 0x80 != 0 { Repair.checksums(of: &frame) }
    decode(frame, at: Int(control >> 2 & 31))
  default: parse(input.rest())
  }
  return 0
}
