import CNetdevSystem
import Foundation
import Glibc
import Synchronization

@testable import VhostUser

/// A back-end on a thread of its own that keeps to the protocol except where it is told not to. It maps nothing and serves no
/// ring: what it saw is what tests look at.
final class ScriptedBackend: Sendable {
  /// What it offers.
  struct Offer: Sendable {
    /// VERSION_1, PROTOCOL_FEATURES, MRG_RXBUF, INDIRECT_DESC, EVENT_IDX, MQ and MTU.
    var features: UInt64 = 1 << 32 | 1 << 30 | 1 << 15 | 1 << 28 | 1 << 29 | 1 << 22 | 1 << 3
    var protocolFeatures: ProtocolFeatures = .understood.subtracting([.config, .configureMemSlots])
    var queuePairs: UInt64 = 128
    var memorySlots: UInt64 = 32
    var config: [UInt8] = []
    /// FEATURES_OK does not stay.
    var refusesFeatures = false
  }

  /// One breach of the rules.
  enum Fault: Sendable, CaseIterable {
    case close, silence, wrongVersion, hugeSize, shortPayload, longPayload, descriptor, otherRequest, notAReply, twice
    case refusal, tooManyDescriptors, descriptorsWithEachByte, halfThenClose, halfThenSilence
    /// A right answer, and right behind it the end; an error of the ring that was set up last, and then a right answer.
    case answerThenClose, errorThenAnswer
    /// The flags of all that is shared so far are cleared and the doorbells' counters filled, and then a right answer.
    case flagsThenAnswer

    /// Those that spoil the step at which they happen.
    static let allCases: [Fault] = [
      .close, .silence, .wrongVersion, .hugeSize, .shortPayload, .longPayload, .descriptor, .otherRequest, .notAReply,
      .twice, .refusal, .tooManyDescriptors, .descriptorsWithEachByte, .halfThenClose, .halfThenSilence,
    ]
  }

  /// Where it happens: at the so-and-so-many-th message of this code, from 0.
  struct Breach: Sendable {
    var code: FrontendCode
    var occurrence = 0
    var fault: Fault
  }

  private struct State {
    var offer: Offer
    var breach: Breach?
    var messages: [FrontendMessage] = []
    var complaints: [String] = []
    var connections = 0
    var breaches = 0
    var isDribbling = false
    var connection: CInt = -1
    var channel: CInt = -1
    /// The eventfd for errors of the ring that was set up last.
    var error: CInt = -1
    /// It blocks each doorbell as soon as it gets it.
    var isBlocking = false
    var blocked: [(descriptor: CInt, blocker: DoorbellBlocker)] = []
    /// The memory that it is shown, if it keeps that; its own descriptors.
    var memory: [MemoryRegion]?
    /// Copies of the eventfds and of the channel of this connection, as long as they are wanted.
    var shared: [(code: FrontendCode, descriptor: CInt)] = []
  }

  let path: String
  private let isClient: Bool
  private let state: Mutex<State>
  private let listener: CInt
  private let stop: CInt
  private let isFinished = Atomic<Bool>(false)

  /// - Parameter isClient: it connects to the path, again and again, instead of listening on it.
  init(_ offer: Offer = Offer(), breach: Breach? = nil, isClient: Bool = false, path: String? = nil) {
    self.path = path ?? SocketFiles.makePath()
    self.isClient = isClient
    state = Mutex(State(offer: offer, breach: breach))
    stop = netdev_eventfd_create()
    var file = netdev_file()
    listener = isClient ? -1 : unsafe netdev_unix_listen(self.path, &file)
    // The thread holds the back-end only while it serves: one that its test has forgotten ends.
    Thread.detachNewThread { [weak self] in while let backend = self, backend.step() {} }
  }

  /// Ends the thread and closes what it had.
  func end() {
    _ = netdev_eventfd_signal(stop)
    while !isFinished.load(ordering: .acquiring) { usleep(200) }
    for (descriptor, blocker) in state.withLock({ $0.blocked }) {
      blocker.end()
      close(descriptor)
    }
    for region in memory { close(region.descriptor) }
    if !isClient {
      shutdown(listener, CInt(SHUT_RDWR))
      unsafe unlink(path)
    }
  }

  deinit {
    if listener >= 0 {
      close(listener)
      unsafe unlink(path)
    }
    close(stop)
  }
}

// MARK: - For the test

extension ScriptedBackend {
  /// Every message of all connections, in order.
  var messages: [FrontendMessage] { state.withLock { $0.messages } }
  /// What the codec found wrong with what came.
  var complaints: [String] { state.withLock { $0.complaints } }
  var connections: Int { state.withLock { $0.connections } }
  /// How often it has broken a rule as it was told to.
  var breaches: Int { state.withLock { $0.breaches } }

  func offer(_ offer: Offer) { state.withLock { $0.offer = offer } }
  func breach(_ breach: Breach?) { state.withLock { $0.breach = breach } }
  /// From now on it blocks every doorbell that it gets, until it ends.
  func blockDoorbells() { state.withLock { $0.isBlocking = true } }

  /// From now on it keeps the memory that it is shown, until it ends.
  func keepMemory() { state.withLock { $0.memory = [] } }

  /// What it has kept of that.
  var memory: [MemoryRegion] { state.withLock { $0.memory } ?? [] }

  /// From now on every reply comes one byte at a time.
  func dribble() { state.withLock { $0.isDribbling = true } }

  /// Ends the present connection; the next one is served as before.
  func hangUp() {
    state.withLock { state in
      if state.connection >= 0 { shutdown(state.connection, CInt(SHUT_RDWR)) }
    }
  }

  /// Sends a request on the back-end's channel; false when there is none.
  func request(_ code: UInt32, payload: [UInt8] = [], needsReply: Bool = true, descriptors: [CInt] = []) -> Bool {
    state.withLock { state in
      guard state.channel >= 0 else { return false }
      let header = MessageHeader(request: code, payloadSize: payload.count, needsReply: needsReply)
      let bytes = header.encoded + payload
      return unsafe netdev_unix_send(state.channel, bytes, bytes.count, descriptors, CInt(descriptors.count)) > 0
    }
  }

  /// False when the front-end has closed the channel.
  var channelIsOpen: Bool {
    let channel = state.withLock { $0.channel }
    var entries = [pollfd(fd: channel, events: 0, revents: 0)]
    return unsafe poll(&entries, 1, 0) == 0
  }

  /// Ends the channel and nothing else.
  func closeChannel() {
    state.withLock { state in
      if state.channel >= 0 { shutdown(state.channel, CInt(SHUT_RDWR)) }
    }
  }

  /// Reports an error of a ring.
  func reportError() { state.withLock { state in _ = netdev_eventfd_signal(state.error) } }

  /// Sends bytes that nobody asked for on the present connection.
  func say(_ bytes: [UInt8]) {
    state.withLock { state in
      if state.connection >= 0 { _ = unsafe netdev_unix_send(state.connection, bytes, bytes.count, nil, 0) }
    }
  }

  /// The answer to the last request on the channel, as its number; nil when none comes within a second.
  func answerOnChannel() -> UInt64? {
    let channel = state.withLock { $0.channel }
    guard let bytes = read(channel, 20, watchStop: true)?.bytes,
      let header = try? MessageHeader(Array(bytes.prefix(12))), header.isReply, header.payloadSize == 8,
      var reader = try? PayloadReader(Array(bytes.dropFirst(12)), size: 8)
    else { return nil }
    return reader.next()
  }
}

// MARK: - The thread

extension ScriptedBackend {
  /// Looks for a connection and serves it; false when it is told to end.
  private func step() -> Bool {
    guard wait(isClient ? -1 : listener, milliseconds: 3) != .stopped else {
      isFinished.store(true, ordering: .releasing)
      return false
    }
    let connection = isClient ? unsafe netdev_unix_connect(path) : netdev_unix_accept(listener)
    if connection >= 0 { serve(connection) }
    return true
  }

  private enum Wake { case ready, stopped, timeout }

  private func wait(_ descriptor: CInt, milliseconds: CInt) -> Wake {
    var entries = [
      pollfd(fd: stop, events: Int16(POLLIN), revents: 0), pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
    ]
    let count = unsafe poll(&entries, 2, milliseconds)
    if entries[0].revents != 0 { return .stopped }
    return count > 0 ? .ready : .timeout
  }

  /// Exactly so many bytes, and the descriptors that came with them; nil at the end.
  private func read(_ connection: CInt, _ count: Int, watchStop: Bool) -> (bytes: [UInt8], descriptors: [CInt])? {
    var bytes: [UInt8] = []
    var descriptors: [CInt] = []
    while bytes.count < count {
      guard wait(connection, milliseconds: 30_000) == .ready else { break }
      var room = [UInt8](repeating: 0, count: count - bytes.count)
      var arrived = [CInt](repeating: -1, count: Int(NETDEV_UNIX_DESCRIPTORS))
      var number: CInt = 0
      var isTruncated = false
      let received = unsafe netdev_unix_receive(connection, &room, room.count, &arrived, &number, &isTruncated)
      if received == -Int(EAGAIN) { continue }
      descriptors += arrived.prefix(Int(number))
      guard received > 0 else { break }
      bytes += room.prefix(received)
    }
    if bytes.count == count { return (bytes, descriptors) }
    for descriptor in descriptors { close(descriptor) }
    return nil
  }

  private func serve(_ connection: CInt) {
    state.withLock { state in
      state.connections += 1
      state.connection = connection
    }
    var status: UInt8 = 0
    var seen: [FrontendCode: Int] = [:]
    while let (head, descriptors) = read(connection, MessageHeader.size, watchStop: true) {
      guard let header = try? MessageHeader(head),
        let payload = header.payloadSize == 0 ? [] : read(connection, header.payloadSize, watchStop: true)?.bytes
      else { break }
      let code = FrontendCode(rawValue: header.request)
      let message: FrontendMessage
      do throws(ProtocolError) {
        message = try FrontendMessage(code: code, payload: payload, descriptors: descriptors)
      } catch {
        state.withLock { $0.complaints.append("\(error)") }
        for descriptor in descriptors { close(descriptor) }
        break
      }
      if case .setStatus(let value) = message { status = value }
      let (offer, breach) = state.withLock { state in
        state.messages.append(message)
        return (state.offer, state.breach)
      }
      keep(message)
      let occurrence = seen[code, default: 0]
      seen[code] = occurrence + 1
      let fault = breach?.code == code && breach?.occurrence == occurrence ? breach?.fault : nil
      if fault != nil { state.withLock { $0.breaches += 1 } }
      if fault == .errorThenAnswer { reportError() }
      if fault == .flagsThenAnswer { clearFlags() }
      if fault == .close { break }
      if fault == .silence { continue }
      let reply = reply(to: message, header, offer, status)
      if let reply, !send(reply, for: code, connection, fault) { break }
      if fault == .answerThenClose { break }
    }
    state.withLock { state in
      state.connection = -1
      for descriptor in [state.channel, state.error] where descriptor >= 0 { close(descriptor) }
      state.channel = -1
      state.error = -1
      for (_, descriptor) in state.shared { close(descriptor) }
      state.shared = []
    }
    close(connection)
  }

  /// The flags of a descriptor are those of all who hold it.
  private func clearFlags() {
    for (code, descriptor) in state.withLock({ $0.shared }) {
      DoorbellBlocker.clearFlag(descriptor)
      guard code == .setVringKick else { continue }
      // Nobody but a writer waits for room; the counter is full once.
      netdev_eventfd_release(descriptor)
      DoorbellBlocker.fill(descriptor)
      DoorbellBlocker.clearFlag(descriptor)
    }
  }

  /// Closes the descriptors of a message, but for the channel.
  private func keep(_ message: FrontendMessage) {
    if [.setVringKick, .setVringCall, .setVringErr, .setBackendReqFD].contains(message.code) {
      state.withLock { state in
        guard state.breach?.fault == .flagsThenAnswer else { return }
        for descriptor in message.descriptors { state.shared.append((message.code, dup(descriptor))) }
      }
    }
    if case .setMemTable(let regions) = message {
      let isKept = state.withLock { state in
        state.memory? += regions
        return state.memory != nil
      }
      if isKept { return }
    }
    if case .setBackendReqFD(let channel) = message { return state.withLock { $0.channel = channel } }
    if case .setVringErr(let vring) = message, let descriptor = vring.descriptor {
      return state.withLock { state in
        if state.error >= 0 { close(state.error) }
        state.error = descriptor
      }
    }
    if case .setVringKick(let vring) = message, let descriptor = vring.descriptor {
      let isKept = state.withLock { state in
        if state.isBlocking { state.blocked.append((descriptor, DoorbellBlocker(descriptor))) }
        return state.isBlocking
      }
      if isKept { return }
    }
    for descriptor in message.descriptors { close(descriptor) }
  }

  private func reply(
    to message: FrontendMessage, _ header: MessageHeader, _ offer: Offer, _ status: UInt8
  ) -> [UInt8]? {
    var writer = PayloadWriter()
    switch message {
    case .getFeatures: writer.append(offer.features)
    case .getProtocolFeatures: writer.append(offer.protocolFeatures.rawValue)
    case .getQueueNum: writer.append(offer.queuePairs)
    case .getMaxMemSlots: writer.append(offer.memorySlots)
    case .getStatus: writer.append(UInt64(offer.refusesFeatures ? status & ~8 : status))
    case .getVringBase(let ring):
      writer.append(ring)
      writer.append(UInt32(0))
    case .getConfig(let size):
      guard !offer.config.isEmpty else { return [] }
      writer.append(UInt32(0))
      writer.append(UInt32(size))
      writer.append(UInt32(0))
      for position in 0..<size { writer.append(position < offer.config.count ? offer.config[position] : 0) }
    default:
      guard header.needsReply else { return nil }
      writer.append(UInt64(0))
    }
    return writer.bytes
  }

  private func send(_ payload: [UInt8], for code: FrontendCode, _ connection: CInt, _ fault: Fault?) -> Bool {
    var payload = payload
    var header = MessageHeader(request: code.rawValue, payloadSize: payload.count, isReply: true)
    var descriptors: [CInt] = []
    switch fault {
    case .shortPayload: payload.removeLast(min(1, payload.count))
    case .longPayload: payload.append(0)
    case .otherRequest: header.request = code == .getFeatures ? 17 : 1
    case .notAReply: header.isReply = false
    case .descriptor: descriptors = [stop]
    case .refusal where payload.count == 8: payload[0] ^= 1
    default: break
    }
    header.payloadSize = fault == .hugeSize ? 1 << 30 : payload.count
    var bytes = header.encoded
    if fault == .wrongVersion { bytes[4] = bytes[4] & ~3 | 2 }
    bytes += payload
    if fault == .twice { bytes += bytes }
    if fault == .tooManyDescriptors { return Self.sendMany(bytes, descriptor: stop, connection) }
    if fault == .descriptorsWithEachByte {
      let most = [CInt](repeating: stop, count: Int(NETDEV_UNIX_DESCRIPTORS))
      // The front-end may hang up in the middle.
      return bytes.allSatisfy { byte in unsafe netdev_unix_send(connection, [byte], 1, most, CInt(most.count)) == 1 }
    }
    if fault == .halfThenClose || fault == .halfThenSilence { bytes.removeLast(bytes.count / 2) }
    defer { if fault == .halfThenClose { shutdown(connection, CInt(SHUT_RDWR)) } }
    let step = state.withLock { $0.isDribbling } ? 1 : bytes.count
    for start in stride(from: 0, to: bytes.count, by: step) {
      let piece = Array(bytes[start..<min(start + step, bytes.count)])
      let sent = unsafe netdev_unix_send(
        connection, piece, piece.count, descriptors, start == 0 ? CInt(descriptors.count) : 0)
      guard sent == piece.count else { return false }
    }
    return true
  }
}
