import BenchmarkSupport
import ChildProcesses
import Glibc
import NetdevDevices

/// A driver at work on a device's socket.
protocol Driver {
  /// The process that its polling thread belongs to.
  var process: pid_t { get }
  /// Lets the frames go: the device knows the rings by now.
  func begin() async throws
  /// Ends it; throws what went wrong while it worked.
  func end() async throws
}

/// DPDK's virtio-user port in a testpmd of its own.
struct DPDKDriver: Driver {
  private let testpmd: Testpmd
  private let start: String

  /// Not inlined: Swift 6.3's optimizer ends with a signal on whoever makes one driver or the other.
  @inline(never) init(
    _ measured: Case, _ rings: Rings, socket: String, options: Options, in workspace: Workspace
  ) async throws {
    let rings = "queues=1,queue_size=\(options.queueSize),\(rings.arguments)"
    testpmd = try await Testpmd(
      name: "driver", port: "net_virtio_user0,path=\(socket),\(rings),mrg_rxbuf=\(options.mergeableBuffers ? 1 : 0)",
      mode: measured.scenario.driverMode, size: measured.size, cpu: options.driverCPU, options: options, in: workspace)
    start = measured.scenario == .macswap ? "start tx_first \(options.window / Traffic.batch)" : "start"
  }

  var process: pid_t { testpmd.process.identifier }

  func begin() async throws { try await testpmd.command(start) }

  func end() async throws { await testpmd.end() }
}

/// This framework's driver, on a thread of this process.
final class OurDriver: Driver {
  private let device: NetworkDevice
  private let work: Traffic
  private var traffic: Task<Void, any Error>?

  /// Not inlined, as the one above.
  @inline(never) init(
    _ way: Contender.Way, _ measured: Case, _ rings: Rings, socket: String, options: Options
  ) async throws {
    var configuration = NetworkDevice.Configuration()
    configuration.cpus = [options.driverCPU]
    // testpmd polls without end.
    configuration.busyPoll = .seconds(3600)
    // As the default pool, on the pages that testpmd has.
    configuration.pool = try PacketPool(
      .init(slots: 4 * options.queueSize + 256, reserve: options.queueSize, hugePages: options.pages == .huge))
    guard configuration.pool?.usesHugePages == (options.pages == .huge) else {
      throw Stop("the pool got no huge pages", status: EX_UNAVAILABLE)
    }
    // testpmd's driver does not know EVENT_IDX.
    let query =
      "queue_size=\(options.queueSize)&event_idx=0&mrg_rxbuf=\(options.mergeableBuffers ? 1 : 0)&\(rings.query)"
    device = try await NetworkDevice.open("vhost-user:\(socket)?\(query)&reconnect=0", configuration: configuration)
    work = Traffic(measured: measured, way: way, window: options.window)
  }

  var process: pid_t { getpid() }

  func begin() async throws {
    traffic = Task { [device, work] in try await device.run { queue in try await work.run(on: queue) } }
  }

  func end() async throws {
    try await device.close()
    do {
      try await traffic?.value
    } catch let error as NetworkDeviceError where error.code == .closed {
      // What this function has just done.
    }
  }
}
