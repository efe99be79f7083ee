internal import LibeventConcurrency

/// What a submission leaves in the program's hands: the release of its buffer, to be waited for later, or never.
///
/// ```swift
/// let receipt = try await queue.submitForReceipt(packet)
/// …
/// try await receipt.released
/// ```
///
/// Any number of tasks may wait for one receipt, from anywhere. Letting it go has no effect on the packet.
public final class Receipt: Sendable {
  private let queue: NetworkQueue
  private let index: UInt32
  private let generation: UInt64

  init(queue: NetworkQueue, waiter: Waiter) {
    self.queue = queue
    index = waiter.index
    generation = waiter.generation
  }

  /// Returns when the device has released the buffer; at once if it has already.
  ///
  /// Deadline: none, as for `send(_:)`. Cancellation has no effect: virtio has no way to take a single buffer back.
  ///
  /// - Throws: `closed` or the cause, when the queue ended before the device released the buffer; `frameTooLong`.
  public var released: Void {
    get async throws(NetworkDeviceError) {
      do throws(NetworkDeviceError) { try await queue.waitForRelease(index, generation) } catch {
        throw error.broughtBack
      }
    }
  }

  deinit { queue.letReceiptGo(index, generation) }
}

extension NetworkQueue {
  /// Submits a packet, as `submit(_:)` does, for a receipt that can be asked for the release of its buffer.
  ///
  /// A method of its own: a packet submitted without one leaves no trace that would have to be kept. Deadline and cancellation:
  /// as `submit(_:)`.
  ///
  /// - Throws: as `submit(_:)`.
  public func submitForReceipt(_ packet: consuming Packet) async throws(NetworkDeviceError) -> Receipt {
    let sendable = try await admit(consume packet, for: "submitForReceipt")
    let waiter = turn.waiters.take(.receipt)
    accept(consume sendable, cookie: waiter.index)
    return Receipt(queue: self, waiter: waiter)
  }

  func waitForRelease(_ index: UInt32, _ generation: UInt64) async throws(NetworkDeviceError) {
    // The receipt is held by whoever asks: its waiter is not used for anything else meanwhile.
    guard let waiter = turn.waiters[index], waiter.generation == generation else { return }
    if case .pending = waiter.outcome {
      turn.releaseWaiters += 1
      turn.interestChanged()
      await park(waiter)
    }
    if case .failed(let error) = waiter.outcome { throw error }
  }

  /// From any thread: nobody will ask any more.
  nonisolated func letReceiptGo(_ index: UInt32, _ generation: UInt64) {
    if isHere {
      unsafe frames.pointee.withTurn { $0.abandon(index, generation) }
    } else {
      loop.execute { unsafe self.frames.pointee.withTurn { $0.abandon(index, generation) } }
    }
  }
}

extension QueueTurn {
  func abandon(_ index: UInt32, _ generation: UInt64) {
    guard let waiter = waiters[index], waiter.generation == generation else { return }
    if case .pending = waiter.outcome { waiter.isAbandoned = true } else { waiters.putBack(waiter) }
  }
}
