import Foundation
import Glibc
import Logging
import Netdev
import Testing
import VhostUser
import VirtioNet

/// Mappings of rings' memory.
///
/// The kernel shows the list in pieces: while others map and unmap, as an allocator with shadow memory does, a reading may miss
/// a line between two pieces. So this is for memory that is to be gone, and may be asked for until it is; a pool of a test that
/// is to stay is not counted.
func ringMappings() -> Int {
  let maps = (try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8)) ?? ""
  return maps.split(separator: "\n").count { $0.contains("/memfd:netdev-rings") }
}

func fileExists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

/// The rings that a device has, as its URL says.
enum Rings: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case split = "", packed = "&packed=1", packedInOrder = "&packed=1&in_order=1"

  var testDescription: String { self == .split ? "split" : rawValue }

  /// RING_PACKED and IN_ORDER.
  var features: UInt64 {
    switch self {
    case .split: 0
    case .packed: 1 << 34
    case .packedInOrder: 1 << 34 | 1 << 35
    }
  }

  /// Where both sides of a ring begin, as SET_VRING_BASE says it.
  var base: UInt32 { self == .split ? 0 : 0x8000_8000 }
}

extension ScriptedBackend.Offer {
  /// The same, and what these rings need.
  init(_ rings: Rings) {
    self.init()
    features |= rings.features
  }
}

/// How to open a device on a back-end, quickly where it lies.
struct Opening {
  /// There for as long as this is.
  let backend: ScriptedBackend
  var options: VhostUserTransport.Options
  var driver = VirtioNetDriver.Options()
  var configuration = NetworkDevice.Configuration()

  init(_ backend: ScriptedBackend, role: VhostUserTransport.Role = .connect, pool: PacketPool? = nil) {
    self.backend = backend
    options = .init(path: backend.path, role: role)
    options.requestTimeout = .seconds(20)
    options.logger.logLevel = .error
    configuration.logger.logLevel = .critical
    configuration.resetTimeout = .milliseconds(50)
    configuration.queueSize = 16
    configuration.pool = pool
  }

  /// Asks for these rings.
  mutating func use(_ rings: Rings) {
    driver.packedRings = rings != .split
    driver.inOrder = rings == .packedInOrder
  }

  func open() async throws -> NetworkDevice {
    try await NetworkDevice.open(
      driver: VirtioNetDriver(transport: try VhostUserTransport(options), options: driver),
      configuration: configuration)
  }

  /// Opens, and returns what was thrown.
  func failure(sourceLocation: SourceLocation = #_sourceLocation) async -> NetworkDeviceError? {
    do {
      let device = try await open()
      try? await device.close()
      Issue.record("it opened", sourceLocation: sourceLocation)
      return nil
    } catch {
      return error as? NetworkDeviceError
    }
  }
}
