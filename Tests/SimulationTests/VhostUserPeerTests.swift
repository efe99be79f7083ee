import Foundation
import NetdevDevices
import NetdevTesting
import Testing

/// A switch of a world behind the real vhost-user transport, in both roles: it is lost and comes back.
@Suite struct VhostUserPeerTests {
  @Test(arguments: [true, false]) func `a switch is lost, and another one takes its place`(listens: Bool) async throws {
    for seed in 0..<10 as Range<UInt64> {
      try await Simulation(seed: seed).run { world in try await outlive(world, listens) }
    }
  }

  @Test(arguments: [true, false]) func `the same seed gives the same trace`(listens: Bool) async throws {
    var reports: [Simulation.Report] = []
    for seed: UInt64 in [3, 3, 4] {
      var simulation = Simulation(seed: seed)
      simulation.limits.traceLines = .max
      reports.append(await simulation.observe { world in try await outlive(world, listens) })
    }
    #expect(reports[0].trace == reports[1].trace)
    #expect(reports[0].fingerprint == reports[1].fingerprint)
    #expect(reports[0].fingerprint != reports[2].fingerprint)
    #expect(reports.allSatisfy { $0.findings.isEmpty })
  }
}

/// The switch gives every frame back, exits, and another one begins: the device's user notices nothing.
private func outlive(_ world: SimulatedWorld, _ listens: Bool) async throws {
  var configuration = VhostUserPeer.Configuration()
  configuration.listens = listens
  let path = "/tmp/netdev-world-\(getpid())"
  let peer = try VhostUserPeer(world, path: path, configuration: configuration)
  defer { peer.end() }
  peer.whenDriven = { pair in
    pair.whenKicked = { $0.loopBack() }
    pair.loopBack()
  }
  peer.begin()
  // Until it listens.
  if listens { while !FileManager.default.fileExists(atPath: path) { try await Task.sleep(for: .milliseconds(1)) } }
  let device = try await world.open("vhost-user:\(path)" + (listens ? "" : "?server=1"))
  let queue = device.queues[0]
  for round in 0..<3 as Range<UInt8> {
    for number in 0..<5 as Range<UInt8> {
      try await queue.send(try Packet(copying: frame(10 * round + number), in: device.pool))
    }
    if round == 1 { peer.hangUp(exitingAfter: .milliseconds(5)) } else { peer.exit() }
    if world.chance(oneIn: 2) { try await Task.sleep(for: .milliseconds(world.choose(below: 20))) }
    peer.begin()
  }
  try await queue.send(try Packet(copying: frame(99), in: device.pool))
  try await device.close()
}
