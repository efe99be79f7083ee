import FuzzSupport

// What a vhost-user back-end can send to our front-end: through the real socket and session, on a loop turned by hand.

/// Before the first input.
@c(LLVMFuzzerInitialize)
public func initialize(_ count: UnsafeMutableRawPointer, _ arguments: UnsafeMutableRawPointer) -> CInt {
  Seeds.writeIfAsked(messageSeeds)
  return 0
}

/// One input: the first byte chooses between bare messages and a whole conversation, the rest is the peer's script.
@c(LLVMFuzzerTestOneInput)
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var input = InputReader(bytes, count)
  let before = openDescriptors()
  if input.byte() & 1 == 0 { runMessages(&input) } else { runConversation(&input) }
  let after = openDescriptors()
  promise(after == before, "no descriptor is lost: there were \(before), now there are \(after)")
  return 0
}
