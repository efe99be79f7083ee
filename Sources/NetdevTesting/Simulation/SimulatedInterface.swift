internal import CSimulation

/// A TAP or TUN interface of a world, seen from its kernel's side: what a device `tap:NAME` or `tun:NAME` transmits comes here, and
/// what is sent here the device receives. Of a TUN interface these are packets, without an Ethernet header.
///
/// ```swift
/// let interface = world.makeInterface("tap0")!
/// let device = try await world.open("tap:tap0")
/// interface.send(frame)
/// while let frame = await interface.next() { … }
/// ```
///
/// Used by the tasks of its world.
public final class SimulatedInterface: @unchecked Sendable {
  // Proof of Sendable: touched on the world's thread only, which `schedule` checks.

  /// Its name.
  public let name: String
  private let bell: SimulatedBell
  private let schedule: WorldSchedule
  private var room = [UInt8](repeating: 0, count: 65_536)

  init(_ name: String, _ bell: SimulatedBell, _ schedule: WorldSchedule) {
    self.name = name
    self.bell = bell
    self.schedule = schedule
  }

  private var isHere: Bool { schedule.expectHere("uses the interface \(name)") }

  /// Queues that a device has open and serves.
  public var queues: Int { isHere ? Int(unsafe simulated_tap_queues(name)) : 0 }

  /// Gives a frame to a queue of the device, by its place among those that are served; false when there is none, the interface is
  /// down, or the queue is full: then the frame is lost.
  @discardableResult public func send(_ frame: [UInt8], queue: Int = 0) -> Bool {
    unsafe isHere && simulated_tap_send(name, CInt(clamping: queue), frame, frame.count)
  }

  /// The oldest frame that the device has transmitted and nobody has taken yet.
  public func take() -> [UInt8]? {
    guard isHere else { return nil }
    let length = unsafe simulated_tap_take(name, &room, room.count)
    return length < 0 ? nil : Array(room.prefix(length))
  }

  /// The same, waiting until there is one; nil after `finish`. One task at a time; cancelling it does not end it.
  public func next() async -> [UInt8]? { isHere ? await bell.next(take) : nil }

  /// Ends the waiting: nobody takes any more.
  public func finish() { if isHere { bell.finish() } }

  /// How many frames it takes from the device before it has no room, until they are taken.
  public func setRoom(_ frames: Int) { if isHere { unsafe simulated_tap_set_room(name, CInt(clamping: frames)) } }

  /// Sets it up or down.
  public func setUp(_ isUp: Bool) { if isHere { unsafe simulated_tap_set_up(name, isUp) } }

  /// Changes its MTU, in bytes.
  public func setMTU(_ bytes: Int) { if isHere { unsafe simulated_tap_set_mtu(name, CInt(clamping: bytes)) } }

  /// Deletes it, whoever has it open.
  public func delete() { if isHere { unsafe simulated_tap_delete(name) } }
}

/// A UDP port of a world, seen by the programs that talk to it: those of the machine that a device `host-udp:127.0.0.1:PORT` is on.
///
/// Used by the tasks of its world.
public final class SimulatedPort: @unchecked Sendable {
  // Proof of Sendable: touched on the world's thread only, which `schedule` checks.

  /// Its number.
  public let number: UInt16
  private let bell: SimulatedBell
  private let schedule: WorldSchedule
  private var room = [UInt8](repeating: 0, count: 65_536)

  init(_ number: UInt16, _ bell: SimulatedBell, _ schedule: WorldSchedule) {
    self.number = number
    self.bell = bell
    self.schedule = schedule
  }

  private var isHere: Bool { schedule.expectHere("uses the port \(number)") }

  /// Sends a datagram to it from a program's own port on 127.0.0.1; false when nobody is bound to it or its buffer is full: then the
  /// datagram is lost.
  @discardableResult public func send(_ payload: [UInt8], from program: UInt16) -> Bool {
    unsafe isHere && simulated_udp_send(number, Self.loopback, program, payload, payload.count)
  }

  /// The oldest datagram that was sent from it and nobody has taken yet, and the program's port that it is for.
  public func take() -> (program: UInt16, payload: [UInt8])? {
    guard isHere else { return nil }
    var (address, program) = (UInt32(0), UInt16(0))
    let length = unsafe simulated_udp_take(number, &address, &program, &room, room.count)
    return length < 0 ? nil : (program, Array(room.prefix(length)))
  }

  /// The same, waiting until there is one; nil after `finish`. One task at a time; cancelling it does not end it.
  public func next() async -> (program: UInt16, payload: [UInt8])? { isHere ? await bell.next(take) : nil }

  /// Ends the waiting: nobody takes any more.
  public func finish() { if isHere { bell.finish() } }

  private static let loopback: UInt32 = 0x7f00_0001
}

// MARK: - Of a world

extension SimulatedWorld {
  /// Makes a TAP or TUN interface, up.
  ///
  /// - Parameters:
  ///   - name: of the interface, as in a device's URL.
  ///   - isMultiQueue: a device may have several queues on it, and has to have asked for more than one.
  ///   - mtu: in bytes.
  ///   - isLayer3: a TUN interface, of packets without Ethernet.
  /// - Returns: nil when there is such an interface already, or can be none of this name (1 to 15 bytes).
  public func makeInterface(
    _ name: String, isMultiQueue: Bool = false, mtu: Int = 1500, isLayer3: Bool = false
  ) -> SimulatedInterface? {
    guard schedule.expectHere("makes an interface of the world"),
      unsafe simulated_tap_make(name, isMultiQueue, isLayer3, CInt(clamping: mtu))
    else { return nil }
    return SimulatedInterface(name, newsBell("the interface \(name)"), schedule)
  }

  /// The programs' side of a UDP port; whether a device has it is seen by whether something arrives.
  public func port(_ number: UInt16) -> SimulatedPort {
    let isHere = schedule.expectHere("takes a port of the world")
    return SimulatedPort(number, isHere ? newsBell("the port \(number)") : SimulatedBell(), schedule)
  }
}
