// The vectors. A ring of four in memory: 64 bytes of descriptors, the available ring at 64, the used ring at 128.
//   available ring: flags 64, idx 66, entries 68 to 74, used_event 76
//   used ring:      flags 128, idx 130, elements 132 to 163, avail_event 164

private func used(_ list: (UInt64, UInt32)...) -> RingOutcome {
  .used(list.map { RingOutcome.Used(token: $0.0, written: $0.1) })
}

private func chains(_ list: (head: UInt16, readable: [Int], writable: [Int])...) -> RingOutcome {
  .chains(list.map { RingOutcome.Chain(head: $0.head, readable: $0.readable, writable: $0.writable) })
}

private func add(_ token: UInt64) -> (RingStep, RingOutcome) {
  (.add(address: vectorBase + token * 256, length: 256, writable: true, token: token), .answer(true))
}

let ringVectors: [RingVector] = [
  RingVector(
    name: "one buffer there and back", size: 4,
    steps: [
      add(1), (.needsKick, .answer(false)), (.publish, .done), (.needsKick, .answer(true)),
      (.needsKick, .answer(false)), (.pop(max: 8), chains((0, [], [256]))), (.pop(max: 8), chains()),
      (.use(head: 0, written: 60), .done), (.reap(max: 8), used()), (.publishUsed, .done), (.needsCall, .answer(true)),
      (.reap(max: 8), used((1, 60))), (.reap(max: 8), used()), (.armInterrupt(after: 1), .answer(false)),
      (.armKick, .answer(false)),
    ],
    memory: "00110000000000000001000002..01..01..0100000000003c..0100"),
  RingVector(
    name: "a full ring, out of order, and its ids in the order of their return", size: 4, start: 65534,
    steps: [
      add(1), add(2), add(3), add(4), (.add(address: 0, length: 1, writable: true, token: 5), .answer(false)),
      (.publish, .done),
      (.pop(max: 3), chains((0, [], [256]), (1, [], [256]), (2, [], [256]))), (.pop(max: 3), chains((3, [], [256]))),
      (.use(head: 2, written: 1), .done), (.use(head: 0, written: 2), .done), (.publishUsed, .done),
      (.reap(max: 1), used((3, 1))), (.reap(max: 9), used((1, 2))),
      add(5), add(6), (.publish, .done), (.pop(max: 8), chains((2, [], [256]), (0, [], [256]))),
    ]),
  RingVector(
    name: "chains share the ring with single buffers", size: 4,
    steps: [
      (.addChain(readable: [12, 100], writable: [1], token: 7), .answer(true)),
      (.addChain(readable: [12, 100], writable: [], token: 8), .answer(false)),
      add(9), (.publish, .done),
      (.pop(max: 8), chains((0, [12, 100], [1]), (3, [], [256]))),
      (.use(head: 3, written: 256), .done), (.use(head: 0, written: 1), .done), (.publishUsed, .done),
      (.reap(max: 8), used((9, 256), (7, 1))),
      (.addChain(readable: [1, 2], writable: [3, 4], token: 10), .answer(true)), (.publish, .done),
      (.pop(max: 1), chains((3, [1, 2], [3, 4]))),
    ]),
  RingVector(
    name: "event indices: told when passed, not before", size: 4,
    steps: [
      add(1), (.publish, .done), (.needsKick, .answer(true)), (.pop(max: 1), chains((0, [], [256]))),
      (.armKick, .answer(false)), add(2), (.publish, .done), (.armKick, .answer(true)), (.needsKick, .answer(true)),
      add(3), (.publish, .done), (.needsKick, .answer(false)),
      (.armInterrupt(after: 2), .answer(false)), (.use(head: 0, written: 0), .done), (.publishUsed, .done),
      (.needsCall, .answer(true)), (.armInterrupt(after: 2), .answer(false)), (.armInterrupt(after: 1), .answer(true)),
      (.armInterrupt(after: 9), .answer(false)), (.pop(max: 9), chains((1, [], [256]), (2, [], [256]))),
      (.use(head: 1, written: 0), .done), (.publishUsed, .done), (.needsCall, .answer(false)),
      (.use(head: 2, written: 0), .done), (.publishUsed, .done), (.needsCall, .answer(true)),
    ]),
  RingVector(
    name: "flags: told unless the low bit is set", size: 4, eventIndex: false,
    steps: [
      add(1), (.publish, .done), (.needsKick, .answer(true)), (.poke(offset: 128, 1), .done), add(2), (.publish, .done),
      (.needsKick, .answer(false)), (.pop(max: 2), chains((0, [], [256]), (1, [], [256]))), (.armKick, .answer(false)),
      add(3), (.publish, .done), (.needsKick, .answer(true)), (.poke(offset: 64, 1), .done),
      (.use(head: 0, written: 0), .done), (.publishUsed, .done), (.needsCall, .answer(true)),
      (.use(head: 1, written: 0), .done), (.publishUsed, .done), (.needsCall, .answer(false)),
      (.armInterrupt(after: 3), .answer(true)), (.pop(max: 1), chains((2, [], [256]))),
      (.use(head: 2, written: 0), .done), (.publishUsed, .done), (.needsCall, .answer(true)),
    ]),
  RingVector(
    name: "lies of a device: an id that is free", size: 4,
    steps: [
      add(1), (.publish, .done), (.poke(offset: 132, 2), .done), (.poke(offset: 130, 1), .done),
      (.reap(max: 4), .broken("usedIdNotOutstanding")), (.reap(max: 4), .broken("usedIdNotOutstanding")),
      (.add(address: 0, length: 1, writable: true, token: 2), .answer(false)),
      (.armInterrupt(after: 1), .answer(false)),
    ]),
  RingVector(
    name: "lies of a device: an id beyond the ring, after one that is good", size: 4,
    steps: [
      add(1), add(2), (.publish, .done), (.poke(offset: 140, 4), .done), (.poke(offset: 130, 2), .done),
      (.reap(max: 4), used((1, 0))), (.reap(max: 4), .broken("usedIdOutOfRange")),
    ]),
  RingVector(
    name: "lies of a device: a length beyond the buffer, an index beyond the flight", size: 4,
    steps: [
      add(1), (.publish, .done), (.poke(offset: 136, 257), .done), (.poke(offset: 130, 1), .done),
      (.reap(max: 4), .broken("usedLengthTooLong")),
    ]),
  RingVector(
    name: "lies of a device: an index beyond the flight", size: 4,
    steps: [add(1), (.publish, .done), (.poke(offset: 130, 2), .done), (.reap(max: 4), .broken("usedIndexJump"))]),
  RingVector(
    name: "lies of a driver: a loop, an unmapped buffer, and a good one that still works", size: 4,
    steps: [
      add(1), add(2), add(3), (.publish, .done), (.poke(offset: 12, 1), .done), (.poke(offset: 14, 0), .done),
      (.poke(offset: 16, 0), .done), (.poke(offset: 18, 9), .done),
      (.pop(max: 8), .broken("chainLoop")), (.pop(max: 8), .broken("bufferUnmapped")),
      (.pop(max: 8), chains((2, [], [256]))), (.use(head: 2, written: 5), .done), (.publishUsed, .done),
      (.reap(max: 8), used((1, 0), (2, 0), (3, 5))),
    ]),
  RingVector(
    name: "lies of a driver: next beyond the ring, writable before readable", size: 4,
    steps: [
      add(1), add(2), (.publish, .done), (.poke(offset: 12, 1), .done), (.poke(offset: 14, 4), .done),
      (.poke(offset: 28, 3), .done), (.poke(offset: 30, 2), .done),
      (.pop(max: 8), .broken("nextOutOfRange")), (.pop(max: 8), .broken("readableAfterWritable")),
    ]),
  RingVector(
    name: "lies of a driver: a head beyond the ring, after one that is good", size: 4,
    steps: [
      add(1), add(2), (.publish, .done), (.poke(offset: 70, 4), .done), (.pop(max: 8), chains((0, [], [256]))),
      (.pop(max: 8), .broken("headOutOfRange")), (.pop(max: 8), .broken("headOutOfRange")),
    ]),
  RingVector(
    name: "lies of a driver: an index beyond the ring", size: 4,
    steps: [
      add(1), (.publish, .done), (.poke(offset: 66, 5), .done), (.pop(max: 8), .broken("availIndexJump")),
      (.armKick, .answer(false)),
    ]),
]
