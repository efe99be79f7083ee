import CNetdevSystem
import CTestSupport
import Glibc
import NetdevTesting
import TestSupport
import Testing

@testable import VirtioDevice

/// What goes wrong with a UDP port of this machine under a device, and who answers from where.
@Suite(.serialized, .timeLimit(.minutes(1))) struct HostUDPTroubleTests {
  /// Each client asks with datagrams of its own, and must be answered from the address that it asked.
  private func converse(_ backend: HostUDPBackend, _ clients: [Client]) throws {
    let driver = try EchoDriver(backend)
    for round in 0..<3 {
      for (index, client) in clients.enumerated() { client.send([UInt8(round), UInt8(index)]) }
      let wanted = (round + 1) * clients.count
      #expect(
        driver.rig.hand.wait {
          driver.turn(); return driver.echoed >= wanted
        })
      for (index, client) in clients.enumerated() {
        #expect(client.receive() == [UInt8(round), UInt8(index)], "client \(index)")
      }
    }
    #expect(driver.rig.engine.statistics.drops.total == 0)
    #expect(driver.rig.engine.statistics.transmittedFrames == UInt64(3 * clients.count))
  }

  /// Five datagrams of a client have been echoed while sending them is refused; what follows is done before that ends.
  private func echoFive(
    of client: Client, by driver: EchoDriver, refused error: CInt, until isDone: () -> Bool = { true },
    _ body: () -> Void
  ) {
    for index in 0..<5 { client.send([UInt8(index)]) }
    refusing(test_call_sendmmsg, error, on: driver.rig.hand) {
      #expect(
        driver.rig.hand.wait {
          driver.turn(); return driver.echoed == 5 && isDone()
        })
      body()
    }
  }

  @Test func `on 0.0.0.0 answers come from the address that was asked`() throws {
    let backend = try HostUDPBackend(address: "0.0.0.0")
    try converse(
      backend,
      [
        try Client("127.0.0.1", asking: "127.0.0.2", port: backend.port),
        try Client("127.0.0.1", asking: "127.0.0.3", port: backend.port),
        try Client("127.0.0.4", asking: "127.0.0.1", port: backend.port),
      ])
  }

  @Test func `one sender that asks two addresses gets each answer from the right one`() throws {
    let backend = try HostUDPBackend(address: "0.0.0.0")
    let driver = try EchoDriver(backend)
    let first = try Client("127.0.0.9", asking: "127.0.0.2", port: backend.port)
    let second = try Client("127.0.0.9", asking: "127.0.0.3", port: backend.port)
    for client in [first, second, first] { client.send([7]) }
    #expect(
      driver.rig.hand.wait {
        driver.turn(); return driver.echoed >= 3
      })
    #expect(first.receive() == [7])
    #expect(first.receive() == [7])
    #expect(second.receive() == [7])
  }

  @Test(.enabled(if: NetworkNamespace.isAvailable, "\(NetworkNamespace.reason)"))
  func `on :: answers of both families come from the address that was asked`() throws {
    try NetworkNamespace.run {
      #expect(shell("ip -6 addr add fd00::1/128 dev lo nodad && ip -6 addr add fd00::2/128 dev lo nodad") == 0)
      let backend = try HostUDPBackend(address: "::")
      #expect(backend.description == "host-udp [::]:\(backend.port)")
      try converse(
        backend,
        [
          try Client("::1", asking: "fd00::2", port: backend.port),
          try Client("fd00::1", asking: "fd00::2", port: backend.port),
          try Client("fd00::1", asking: "::1", port: backend.port),
          try Client("127.0.0.1", asking: "127.0.0.2", port: backend.port),
        ])
    }
  }

  @Test(.enabled(if: NetworkNamespace.isAvailable, "\(NetworkNamespace.reason)"))
  func `a link-local address is answered on its link`() throws {
    try NetworkNamespace.run {
      let tap = openTapQueue("tap7", withHeaders: true)
      defer { close(tap) }
      #expect(shell("ip link set tap7 up && ip -6 addr add fe80::7/64 dev tap7 nodad") == 0)
      // The kernel takes its time with a new link: what is sent before is lost.
      let early = try HostUDPBackend(address: "::")
      let (first, probe) = (try EchoDriver(early), try Client("fe80::7%tap7", asking: "fe80::7%tap7", port: early.port))
      #expect(
        first.rig.hand.wait {
          probe.send([7])
          first.turn()
          return first.echoed > 0
        })
      let backend = try HostUDPBackend(address: "::")
      try converse(backend, [try Client("fe80::7%tap7", asking: "fe80::7%tap7", port: backend.port)])
    }
  }

  @Test func `bound to one address of IPv6, it serves that one`() throws {
    let backend = try HostUDPBackend(address: "::1")
    try converse(backend, [try Client("::1", asking: "::1", port: backend.port)])
  }

  @Test(arguments: [(EPERM, true), (ENOSYS, true), (ENOMEM, false), (EAGAIN, false), (ECONNREFUSED, false)])
  func `receiving that is refused never keeps the loop awake, and ends the device if it will not pass`(
    _ error: CInt, _ isFinal: Bool
  ) throws {
    let log = EventLog()
    let backend = try HostUDPBackend()
    let rig = try Rig(backend: backend, configuration: log.configuration())
    let client = try Client(port: backend.port)
    for _ in 0..<8 { rig.offerReceive([1526]) }
    rig.serve()
    refusing(test_call_recvmmsg, error, on: rig.hand) {
      client.send([1, 2, 3])
      #expect(rig.hand.idleServices(of: rig) <= 40)
    }
    #expect((log.loss != nil) == isFinal)
    if isFinal {
      #expect(log.loss?.code == .permission)
      #expect(rig.hand.idleServices(of: rig) <= 2)
    } else {
      #expect(rig.hand.wait { rig.receive.usedCount == 1 })
    }
  }

  @Test(arguments: [(EPERM, DropReason.refused), (ENETUNREACH, .linkDown), (EMSGSIZE, .tooLong)])
  func `datagrams that the system refuses to send are counted as dropped, not as sent`(
    _ error: CInt, _ reason: DropReason
  ) throws {
    let log = EventLog()
    let backend = try HostUDPBackend()
    let driver = try EchoDriver(backend, configuration: log.configuration())
    let client = try Client(port: backend.port)
    echoFive(of: client, by: driver, refused: error) {
      driver.rig.hand.settle()
    }
    let statistics = driver.rig.engine.statistics
    #expect(statistics.transmittedFrames == 0)
    #expect(statistics.transmittedBytes == 0)
    #expect(statistics.drops[.transmitted, reason] == 5)
    #expect(log.events.contains(.firstDrop(.transmitted, reason)))
    #expect(log.loss == nil)
    // And it goes on: each frame is in one counter.
    client.send([9])
    #expect(
      driver.rig.hand.wait {
        driver.turn(); return driver.echoed == 6
      })
    #expect(client.receive() == [9])
    #expect(driver.rig.engine.statistics.transmittedFrames == 1)
    #expect(driver.rig.device.drops[0].total(.transmitted) == 5)
  }

  @Test(arguments: [ENOBUFS, EAGAIN])
  func `datagrams that the system does not take for now wait, and are counted once they have gone`(_ error: CInt) throws
  {
    let backend = try HostUDPBackend()
    let driver = try EchoDriver(backend)
    let client = try Client(port: backend.port)
    echoFive(of: client, by: driver, refused: error) {
      #expect(driver.rig.hand.idleServices(of: driver.rig) <= 20)
      #expect(driver.rig.engine.statistics.transmittedFrames == 0)
    }
    for index in 0..<5 {
      #expect(driver.rig.hand.wait { driver.rig.engine.statistics.transmittedFrames == 5 })
      #expect(client.receive() == [UInt8(index)])
    }
    #expect(driver.rig.engine.statistics.drops.total == 0)
  }

  @Test(arguments: [ENOBUFS, EAGAIN])
  func `datagrams that wait when the device is stopped are counted as dropped`(_ error: CInt) throws {
    let log = EventLog()
    let backend = try HostUDPBackend()
    let driver = try EchoDriver(backend, configuration: log.configuration())
    let client = try Client(port: backend.port)
    echoFive(of: client, by: driver, refused: error) {
      driver.rig.engine.stop()
    }
    // As whoever looks at the device sees it, and in the engine's own account.
    let statistics = driver.rig.device.statistics[0]
    #expect(statistics.transmittedFrames == 0)
    #expect(statistics.drops[.transmitted, .pairDisabled] == 5)
    #expect(statistics.drops.total == 5)
    #expect(driver.rig.engine.statistics.drops.total == 5)
    #expect(driver.rig.device.drops[0].total == 5)
    #expect(log.events.contains(.firstDrop(.transmitted, .pairDisabled)))
    #expect(log.loss == nil)
  }

  @Test func `sending that a sandbox does not know ends the device, and what waits is counted as dropped`() throws {
    let log = EventLog()
    let backend = try HostUDPBackend()
    let driver = try EchoDriver(backend, configuration: log.configuration())
    let client = try Client(port: backend.port)
    echoFive(of: client, by: driver, refused: ENOSYS, until: { log.loss != nil }) {
      driver.turn()
    }
    #expect(driver.rig.engine.statistics.transmittedFrames == 0)
    #expect(driver.rig.engine.statistics.drops[.transmitted, .linkDown] == 5)
  }
}
