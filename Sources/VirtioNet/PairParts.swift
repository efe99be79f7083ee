internal import LibeventConcurrency
internal import Netdev

/// The transport's doorbells for a pair. They cannot be copied, so that ringing borrows them and retains nothing.
struct Doorbells: ~Copyable {
  let receive: any VirtioDoorbell
  let transmit: any VirtioDoorbell
  /// The device takes its turns on the pair's loop.
  let areOnLoop: Bool

  init(receive: any VirtioDoorbell, transmit: any VirtioDoorbell) {
    self.receive = receive
    self.transmit = transmit
    areOnLoop = receive.isOnLoop && transmit.isOnLoop
  }

  borrowing func kickReceive() { receive.kick() }
  borrowing func kickTransmit() { transmit.kick() }
  borrowing func disconnect() {
    receive.disconnect()
    transmit.disconnect()
  }
}

/// What a queue pair is made of beside rings.
struct PairParts {
  let index: Int
  let agreed: VirtioNetDriver.Agreed
  let memory: VirtioNetDriver.Memory
  let slots: SlotTable
  let signal: QueueSignal
  let transport: any VirtioTransport
  let loop: LoopExecutor
}
