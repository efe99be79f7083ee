import FuzzSupport
import Virtio

// Rings opposite a peer that may write anything at any time: our driver's ring, our device's ring, and the whole engine.

/// Before the first input.
@c(LLVMFuzzerInitialize)
public func initialize(_ count: UnsafeMutableRawPointer, _ arguments: UnsafeMutableRawPointer) -> CInt {
  Seeds.writeIfAsked(ringSeeds)
  return 0
}

/// One input: the first byte chooses the side, the rest is the script of both sides.
@c(LLVMFuzzerTestOneInput)
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var input = InputReader(bytes, count)
  switch input.byte() % 6 {
  case 0: runDriverRing(&input, .split)
  case 1: runDeviceRing(&input, .split)
  case 2: runEngine(&input, .split)
  case 3: runDriverRing(&input, .packed)
  case 4: runDeviceRing(&input, .packed)
  default: runEngine(&input, .packed)
  }
  return 0
}
