import CNetdevSystem
import Glibc
import LibeventConcurrency
import TestSupport
import Testing

@testable import VhostUser

/// Messages on a socket, as the loop gets them.
@Suite(.serialized, .quietLoops, .timeLimit(.minutes(2))) struct MessageSocketTests {
  /// A socket with its messages, on a loop of its own.
  private actor Receiver {
    private nonisolated let loop: LoopExecutor
    private var socket: MessageSocket?
    private(set) var requests: [UInt32] = []

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

    init() throws { loop = try LoopExecutor(name: "receiver") }

    func open(_ descriptor: CInt) throws {
      socket = try MessageSocket(
        descriptor: descriptor, loop: loop,
        onMessage: { [weak self] message in self?.assumeIsolated { $0.requests.append(message.header.request) } },
        onEnd: { _ in })
    }

    func close() {
      socket?.close()
      socket = nil
    }
  }

  /// A turn reads at most 32 times, and reads a message in two: the rest of one and fifteen whole ones leave it with one
  /// reading, which is the header of the last.
  @Test func `a message without payload is there when its header is, although the turn's readings are used up`()
    async throws
  {
    var ends: [CInt] = [-1, -1]
    try #require(unsafe netdev_unix_pair(&ends) == 0)
    let (ours, theirs) = (ends[0], ends[1])
    defer { close(theirs) }
    func send(_ bytes: [UInt8]) throws {
      try #require(unsafe netdev_unix_send(theirs, bytes, bytes.count, nil, 0) == bytes.count)
    }
    let receiver = try Receiver()
    try await receiver.open(ours)
    let payload = [UInt8](repeating: 7, count: 8)
    try send(MessageHeader(request: 1, payloadSize: payload.count).encoded)
    try await eventually("the first header has been read") {
      var byte: UInt8 = 0
      return unsafe recv(ours, &byte, 1, CInt(MSG_PEEK) | CInt(MSG_DONTWAIT)) < 0
    }
    var rest = payload
    for request: UInt32 in 2...16 {
      rest += MessageHeader(request: request, payloadSize: payload.count).encoded + payload
    }
    rest += MessageHeader(request: 17, payloadSize: 0).encoded
    try send(rest)
    try await eventually("all have come", within: .seconds(20)) { await receiver.requests.count == 17 }
    #expect(await receiver.requests == Array(1...17))
    await receiver.close()
  }
}
