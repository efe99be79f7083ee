internal import CNetdevSystem
internal import Glibc
package import LibeventConcurrency

/// A vhost-user socket on its loop: whole messages in, whole messages out, descriptors with them; it never blocks.
///
/// Made, used and closed on the loop only. Of a message that breaks off or is no message the socket closes the descriptors;
/// those of a message that it hands over belong to whoever gets it.
package final class MessageSocket {
  /// One message as it came.
  package struct Incoming {
    package let header: MessageHeader
    package let payload: [UInt8]
    /// Owned by the receiver.
    package let descriptors: [CInt]
  }

  private struct Outgoing {
    var bytes: [UInt8]
    /// Borrowed from the caller until `done`.
    var descriptors: [CInt]
    let done: () -> Void
  }

  /// Messages that may wait for a peer that does not read.
  private static let backlog = 64
  /// Messages taken at one readiness, so that a peer that floods does not hold the loop.
  private static let budget = 32

  private let descriptor: CInt
  private let onMessage: (Incoming) -> Void
  private let onEnd: (String) -> Void
  private var readable: LoopSource?
  private var writable: LoopSource?
  private var outgoing: [Outgoing] = []
  private var header: MessageHeader?
  private var partial: [UInt8] = []
  private var descriptors: [CInt] = []
  private var isOpen = true

  /// Takes over the descriptor, also when it throws.
  ///
  /// - Parameter onEnd: called once when the connection is of no more use, with the reason; not after `close`.
  package init(
    descriptor: CInt, loop: LoopExecutor, onMessage: @escaping (Incoming) -> Void, onEnd: @escaping (String) -> Void
  ) throws(LoopError) {
    self.descriptor = descriptor
    self.onMessage = onMessage
    self.onEnd = onEnd
    // From here on `deinit` closes the descriptor.
    readable = try loop.makeSource(descriptor: descriptor, readiness: .readable) { [weak self] in self?.receive() }
    writable = try loop.makeSource(descriptor: descriptor, readiness: .writable) { [weak self] in self?.flush() }
    readable?.resume()
  }

  deinit { close() }

  /// Sends a message; its descriptors stay the caller's and must be open until `done` is called. `done` is not called when
  /// the connection ends first.
  package func send(_ bytes: [UInt8], descriptors: [CInt] = [], done: @escaping () -> Void = {}) {
    guard isOpen else { return }
    guard outgoing.count < Self.backlog else { return end("the peer asks and reads no answers") }
    outgoing.append(Outgoing(bytes: bytes, descriptors: descriptors, done: done))
    if outgoing.count == 1 { flush() }
  }

  /// Ends it: nothing is called any more.
  package func close() {
    guard isOpen else { return }
    isOpen = false
    readable?.cancel()
    writable?.cancel()
    closeDescriptors()
    outgoing = []
    netdev_close(descriptor)
  }

  private func end(_ reason: String) {
    guard isOpen else { return }
    close()
    onEnd(reason)
  }

  private func closeDescriptors() {
    for descriptor in descriptors { netdev_close(descriptor) }
    descriptors = []
  }
}

// MARK: - Out

extension MessageSocket {
  private func flush() {
    while isOpen, let next = outgoing.first {
      let sent = unsafe netdev_unix_send(
        descriptor, next.bytes, next.bytes.count, next.descriptors, CInt(truncatingIfNeeded: next.descriptors.count))
      guard sent >= 0 else {
        if sent == -Int(EAGAIN) {
          writable?.resume()
        } else {
          end("sending failed: \(ErrorNumber(CInt(truncatingIfNeeded: sent)))")
        }
        return
      }
      guard sent == next.bytes.count else {
        // Descriptors go with the first byte.
        outgoing[0].bytes.removeFirst(sent)
        outgoing[0].descriptors = []
        continue
      }
      outgoing.removeFirst()
      if outgoing.isEmpty { writable?.suspend() }
      next.done()
    }
  }
}

// MARK: - In

extension MessageSocket {
  private func receive() {
    for _ in 0..<Self.budget {
      guard isOpen, readSome() else { return }
    }
  }

  /// Reads towards the end of the present header or payload, never beyond it, so that descriptors stay with their message.
  /// False when there is nothing more now.
  private func readSome() -> Bool {
    let wanted = (header?.payloadSize ?? MessageHeader.size) - partial.count
    var room = [UInt8](repeating: 0, count: wanted)
    var arrived = [CInt](repeating: -1, count: Int(NETDEV_UNIX_DESCRIPTORS))
    var count: CInt = 0
    var isTruncated = false
    let received = unsafe netdev_unix_receive(descriptor, &room, wanted, &arrived, &count, &isTruncated)
    if received == -Int(EAGAIN) { return false }
    descriptors += arrived.prefix(Int(count))
    guard received > 0, !isTruncated, descriptors.count <= Int(NETDEV_UNIX_DESCRIPTORS) else {
      end(received == 0 ? "the peer closed the connection" : reason(Int(received)))
      return false
    }
    partial += room.prefix(received)
    return received < wanted ? true : finishPart()
  }

  private func reason(_ received: Int) -> String {
    received < 0
      ? "receiving failed: \(ErrorNumber(CInt(truncatingIfNeeded: received)))" : "a message with too many descriptors"
  }

  private func finishPart() -> Bool {
    guard let header else {
      do throws(ProtocolError) {
        let complete = try MessageHeader(partial)
        header = complete
        partial = []
        // Without payload that was the message: nothing more need ever come that would bring this turn back.
        return complete.payloadSize > 0 || finishPart()
      } catch {
        end("\(error)")
        return false
      }
    }
    let message = Incoming(header: header, payload: partial, descriptors: descriptors)
    self.header = nil
    partial = []
    descriptors = []
    onMessage(message)
    return true
  }
}
