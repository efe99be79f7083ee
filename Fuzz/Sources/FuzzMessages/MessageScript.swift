import CFuzzSupport
import CNetdevSystem
import FuzzSupport
import Glibc
import LibeventConcurrency
import NetdevTesting

@testable import VhostUser

/// Sends what the input says through a `MessageSocket`, in the pieces and with the descriptors that it says, and compares
/// with what a slow reader makes of the same stream.
func runMessages(_ input: inout InputReader) {
  let hand = HandTurnedLoop(backend: PolledBackend())
  var ends: [CInt] = [-1, -1]
  promise(netdev_unix_pair(&ends) == 0, "there is a pair of sockets")
  var received: [ExpectedStream.Message] = []
  var hasEnded = false
  let socket = try? MessageSocket(
    descriptor: ends[0], loop: hand.loop,
    onMessage: { message in
      promise(!hasEnded, "nothing comes after the end")
      for descriptor in message.descriptors { close(descriptor) }
      received.append(
        ExpectedStream.Message(
          request: message.header.request, isReply: message.header.isReply, needsReply: message.header.needsReply,
          payload: message.payload, descriptors: message.descriptors.count))
      judge(message)
    },
    onEnd: { _ in
      promise(!hasEnded, "the end comes once")
      hasEnded = true
    })
  guard let socket else { violated("there is a socket") }

  var stream = ExpectedStream()
  let loan = netdev_eventfd_create()
  while !input.isAtEnd, !hasEnded {
    let control = input.byte()
    let (piece, descriptors) = nextPiece(control, &input)
    if !piece.isEmpty {
      let sent = fuzz_send(ends[1], piece, piece.count, loan, CInt(descriptors))
      if sent > 0 { stream.append(piece.prefix(sent), descriptors: descriptors) }
    }
    if control & 0x80 != 0 { hand.poll() }
  }
  let hangsUp = stream.count % 2 == 1
  if hangsUp { close(ends[1]) }
  // Each look makes progress: reads are bounded by the bytes.
  var looks = 0
  while !hasEnded, isReadable(ends[0]) {
    hand.poll()
    looks += 1
    promise(looks < 100_000, "the socket is read until it is empty")
  }
  let expected = stream.messages()
  promise(received == expected.messages, "the messages are \(expected.messages), not \(received)")
  promise(
    hasEnded == (expected.isBroken || hangsUp),
    "the connection \(expected.isBroken ? "" : "does not ") end by its bytes")
  socket.close()
  hand.poll()
  if !hangsUp { close(ends[1]) }
  close(loan)
}

/// One piece of the stream: raw bytes, or a message whose header fits. Its descriptors are none, some, or too many.
private func nextPiece(_ control: UInt8, _ input: inout InputReader) -> (bytes: [UInt8], descriptors: Int) {
  let descriptors: Int
  switch control >> 2 & 3 {
  case 0, 1: descriptors = 0
  case 2: descriptors = 1
  default: descriptors = min(Int(input.byte()), Int(FUZZ_DESCRIPTORS))
  }
  switch control & 3 {
  case 0: return (input.take(Int(input.byte())), descriptors)
  case 1: return (input.take(1), descriptors)
  default:
    let request = UInt32(input.byte())
    let flags = input.byte()
    let size = control & 1 == 0 ? Int(input.byte()) : Int(input.number(UInt16.self)) % 4098
    var header = MessageHeader(
      request: request, payloadSize: size, isReply: flags & 4 != 0, needsReply: flags & 8 != 0
    ).encoded
    header[5] = flags & 0xf0
    var payload = input.take(min(size, Int(input.byte()) * (control & 1 == 0 ? 1 : 16)))
    payload += [UInt8](repeating: 0, count: size - payload.count)
    return (header + payload, descriptors)
  }
}

/// Whether there is something to read, the end included.
func isReadable(_ descriptor: CInt) -> Bool {
  var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return poll(&entry, 1, 0) > 0
}
