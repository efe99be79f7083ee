// swift-tools-version: 6.2
import PackageDescription

/// The rules of the main package, without strict memory safety: what is measured is written as a user writes it.
let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("InferIsolatedConformances"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

let cRules: [CSetting] = [.define("_GNU_SOURCE"), .treatAllWarnings(as: .error)]

let package = Package(
  name: "swift-netdev-benchmarks",
  traits: [
    .default(enabledTraits: []),
    .trait(name: "Timing", description: "Benchmarks by ordo-one/benchmark, which is fetched for this alone."),
  ],
  dependencies: [
    .package(name: "swift-netdev", path: ".."),
    // Without its interposers: the exact counts come from `count.sh`.
    .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
  ],
  targets: [
    // The same bursts written in C: what Swift is measured against, instruction by instruction; and the loops over both.
    .target(name: "CRingTwin", cSettings: cRules),
    .target(
      name: "RingLoop", dependencies: ["CRingTwin", .product(name: "Virtio", package: "swift-netdev")],
      swiftSettings: rules),
    // Counts every allocation of the executable that it is linked into.
    .target(name: "CAllocationCounter", cSettings: cRules),

    // What several of the executables below need.
    .target(name: "BenchmarkSupport", swiftSettings: rules),

    // Counted executables: `count.sh` runs them under callgrind and compares with its table of bounds.
    .executableTarget(
      name: "CountRing",
      dependencies: ["RingLoop", "CAllocationCounter", .product(name: "Virtio", package: "swift-netdev")],
      swiftSettings: rules),
    .executableTarget(
      name: "CountQueue",
      dependencies: [
        "CAllocationCounter", .product(name: "Netdev", package: "swift-netdev"),
        .product(name: "NetdevDevices", package: "swift-netdev"),
      ],
      swiftSettings: rules),
    .executableTarget(
      name: "CountFrames",
      dependencies: [
        "CAllocationCounter", .product(name: "Netdev", package: "swift-netdev"),
        .product(name: "NetdevDevices", package: "swift-netdev"),
        .product(name: "PacketFormats", package: "swift-netdev"),
      ],
      swiftSettings: rules),

    // The twin is only a measure while it does the same work.
    .testTarget(
      name: "RingTwinTests", dependencies: ["RingLoop", .product(name: "Virtio", package: "swift-netdev")],
      swiftSettings: rules),

    // The ring's tests with two threads, optimized: those of the package, and what is worth while only here.
    .testTarget(
      name: "RingThreadTests",
      dependencies: [
        .product(name: "RingThreads", package: "swift-netdev"), .product(name: "Virtio", package: "swift-netdev"),
      ],
      swiftSettings: rules),

    // What the two twins below need of the system.
    .target(name: "CTwinSupport", cSettings: cRules),

    // Echo over TAP, timed against the same in C and against kernel sockets: `time.sh` runs it.
    .target(name: "CEchoTwin", dependencies: ["CTwinSupport"], cSettings: cRules),
    .executableTarget(
      name: "TimeEcho",
      dependencies: [
        "BenchmarkSupport", "CEchoTwin", "CTwinSupport", .product(name: "NetdevDevices", package: "swift-netdev"),
      ],
      swiftSettings: rules),

    // The example KeyValueStore against the same store on kernel sockets: `store.sh` runs it.
    .target(name: "CStoreTwin", dependencies: ["CTwinSupport"], cSettings: cRules),
    .executableTarget(
      name: "TimeStore",
      dependencies: [
        "BenchmarkSupport", "CStoreTwin", "CTwinSupport", .product(name: "ChildProcesses", package: "swift-netdev"),
        .product(name: "NetdevDevices", package: "swift-netdev"),
        .product(name: "Netdev", package: "swift-netdev"), .product(name: "PacketFormats", package: "swift-netdev"),
        .product(name: "Responder", package: "swift-netdev"),
        .product(name: "StoreService", package: "swift-netdev"),
      ],
      swiftSettings: rules),

    // The driver beside DPDK's, on DPDK's device: `dpdk.sh` runs it.
    .executableTarget(
      name: "TimeDPDK",
      dependencies: [
        "BenchmarkSupport", .product(name: "ChildProcesses", package: "swift-netdev"),
        .product(name: "NetdevDevices", package: "swift-netdev"),
      ],
      swiftSettings: rules),

    // Two queues beside one: `scaling.sh` runs it, and looks at what both write.
    .executableTarget(
      name: "TimeScaling",
      dependencies: ["BenchmarkSupport", .product(name: "NetdevDevices", package: "swift-netdev")],
      swiftSettings: rules),

    // The tool looks for its targets in a folder of this name.
    .executableTarget(
      name: "TimeQueue",
      dependencies: [
        "RingLoop", .product(name: "Virtio", package: "swift-netdev"),
        .product(name: "NetdevDevices", package: "swift-netdev"),
        .product(name: "Benchmark", package: "benchmark", condition: .when(traits: ["Timing"])),
      ],
      path: "Benchmarks/TimeQueue", swiftSettings: rules),
  ]
)
