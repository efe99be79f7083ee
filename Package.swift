// swift-tools-version: 6.2
import PackageDescription

/// One set of rules for every Swift target: strict memory safety, warnings are errors, nonisolated async stays on its caller.
let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("InferIsolatedConformances"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableExperimentalFeature("Lifetimes"),
]

let cRules: [CSetting] = [.define("_GNU_SOURCE"), .treatAllWarnings(as: .error)]

/// What the examples alone need: whoever takes no trait of this package does not fetch it.
let argumentParser = Target.Dependency.product(
  name: "ArgumentParser", package: "swift-argument-parser", condition: .when(traits: ["Examples"]))

let package = Package(
  name: "swift-netdev",
  products: [
    .library(name: "Netdev", targets: ["Netdev"]),
    .library(name: "NetdevDevices", targets: ["NetdevDevices"]),
    .library(name: "NetdevTesting", targets: ["NetdevTesting"]),
    .library(name: "Virtio", targets: ["Virtio"]),
    .library(name: "VirtioNet", targets: ["VirtioNet"]),
    .library(name: "VirtioDevice", targets: ["VirtioDevice"]),
    .library(name: "InProcess", targets: ["InProcess"]),
    .library(name: "VhostUser", targets: ["VhostUser"]),
    .library(name: "PacketSocket", targets: ["PacketSocket"]),
    .library(name: "PacketFormats", targets: ["PacketFormats"]),
    .library(name: "Responder", targets: ["Responder"]),
    .library(name: "LibeventConcurrency", targets: ["LibeventConcurrency"]),
    .library(name: "NetdevProgram", targets: ["NetdevProgram"]),
    .library(name: "NetdevService", targets: ["NetdevService"]),
    .library(name: "NetdevMetrics", targets: ["NetdevMetrics"]),
    .executable(name: "EchoServer", targets: ["EchoServer"]),
    .executable(name: "Forwarder", targets: ["Forwarder"]),
    .executable(name: "Switch", targets: ["Switch"]),
    .executable(name: "DHCPServer", targets: ["DHCPServer"]),
    .executable(name: "Router", targets: ["Router"]),
    .executable(name: "TrafficGenerator", targets: ["TrafficGenerator"]),
    .executable(name: "CapturePackets", targets: ["CapturePackets"]),
    .executable(name: "KeyValueStore", targets: ["KeyValueStore"]),
    // What tests and examples share with the package of the benchmarks; of no use to anybody else.
    .library(name: "StoreService", targets: ["StoreService"]),
    .library(name: "RingThreads", targets: ["RingThreads"]),
    .library(name: "ChildProcesses", targets: ["ChildProcesses"]),
  ],
  traits: [
    .default(enabledTraits: ["Examples"]),
    .trait(name: "Examples", description: "The example programs; a program that uses the library leaves it out."),
    .trait(name: "ServiceLifecycle", description: "NetdevService: a device as a service of swift-service-lifecycle."),
    .trait(name: "Metrics", description: "NetdevMetrics: what devices count, reported to swift-metrics."),
    .trait(name: "Testing", description: "For tests of this package only: system calls can be refused."),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    // Of use to a trait only, and not fetched without it.
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
  ],
  targets: [
    // The system: C for what Swift cannot say, and the event loop.
    .target(
      name: "CNetdevSystem",
      cSettings: cRules + [.define("NETDEV_TESTING", .when(traits: ["Testing"]))]),
    .systemLibrary(name: "CLibevent", pkgConfig: "libevent_core", providers: [.apt(["libevent-dev"])]),
    .target(
      name: "LibeventConcurrency", dependencies: ["CLibevent", "CNetdevSystem"], swiftSettings: rules),

    // What the kernel says of this host's interfaces.
    .target(
      name: "HostInterfaces", dependencies: ["LibeventConcurrency", "CNetdevSystem"], swiftSettings: rules),

    // Both sides of a virtqueue, as pure memory.
    .target(name: "Virtio", dependencies: ["PacketFormats", "CNetdevSystem"], swiftSettings: rules),

    // The asynchronous device interface; it does not know virtio.
    .target(
      name: "Netdev",
      dependencies: [
        "LibeventConcurrency", "PacketFormats", "CNetdevSystem", .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),

    // The virtio-net driver, the software device, and the transport that joins them in one process.
    .target(
      name: "VirtioNet",
      dependencies: [
        "Netdev", "Virtio", "LibeventConcurrency", "PacketFormats", "CNetdevSystem",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),
    .target(
      name: "VirtioDevice",
      dependencies: ["Virtio", "HostInterfaces", "LibeventConcurrency", "PacketFormats", "CNetdevSystem"],
      swiftSettings: rules),
    .target(
      name: "InProcess",
      dependencies: ["VirtioNet", "VirtioDevice", "Virtio", "Netdev", "LibeventConcurrency", "CNetdevSystem"],
      swiftSettings: rules),

    // Devices of other programs: the front-end of the vhost-user protocol.
    .target(
      name: "VhostUser",
      dependencies: [
        "VirtioNet", "Virtio", "Netdev", "LibeventConcurrency", "PacketFormats", "CNetdevSystem",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),

    // Interfaces of this host, by packet sockets: a driver that is not virtio.
    .target(
      name: "PacketSocket",
      dependencies: [
        "Netdev", "HostInterfaces", "LibeventConcurrency", "PacketFormats", "CNetdevSystem",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),

    // What packets say, and who answers.
    .target(name: "PacketFormats", swiftSettings: rules),
    .target(
      name: "Responder", dependencies: ["Netdev", "PacketFormats", "LibeventConcurrency"], swiftSettings: rules),

    // Every device of this build, by URL; and the tools to test with.
    .target(
      name: "NetdevDevices",
      dependencies: [
        "InProcess", "VhostUser", "PacketSocket", "VirtioNet", "VirtioDevice", "Virtio", "Netdev", "PacketFormats",
        "CNetdevSystem",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),
    .target(name: "CSimulation", cSettings: cRules),
    .target(
      name: "NetdevTesting",
      dependencies: [
        "NetdevDevices", "InProcess", "VhostUser", "VirtioDevice", "Netdev", "VirtioNet", "Virtio",
        "LibeventConcurrency", "PacketFormats", "CSimulation", "CNetdevSystem",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),

    // What servers are made of, each behind the trait that fetches its package; empty without it.
    .target(
      name: "NetdevService",
      dependencies: [
        "NetdevDevices", "Netdev", "LibeventConcurrency",
        .product(
          name: "ServiceLifecycle", package: "swift-service-lifecycle", condition: .when(traits: ["ServiceLifecycle"])),
      ],
      swiftSettings: rules),
    .target(
      name: "NetdevMetrics",
      dependencies: [
        "Netdev", "LibeventConcurrency",
        .product(name: "CoreMetrics", package: "swift-metrics", condition: .when(traits: ["Metrics"])),
      ],
      swiftSettings: rules),

    // Signals, output and failures of a program that has no framework for them.
    .target(
      name: "NetdevProgram", dependencies: ["Netdev", .product(name: "Logging", package: "swift-log")],
      swiftSettings: rules),

    .target(
      name: "ExampleSupport",
      dependencies: [
        "Netdev", "NetdevProgram", "PacketFormats", .product(name: "Logging", package: "swift-log"),
        argumentParser,
      ],
      path: "Examples/ExampleSupport", swiftSettings: rules),
    .executableTarget(
      name: "EchoServer",
      dependencies: [
        "ExampleSupport", "NetdevProgram", "NetdevDevices", "Netdev", "Responder", "PacketFormats",
        argumentParser,
      ],
      path: "Examples/EchoServer", swiftSettings: rules),
    .executableTarget(
      name: "Forwarder",
      dependencies: [
        "ExampleSupport", "NetdevProgram", "NetdevDevices", "Netdev",
        argumentParser,
      ],
      path: "Examples/Forwarder", swiftSettings: rules),
    .executableTarget(
      name: "Switch",
      dependencies: [
        "ExampleSupport", "NetdevDevices", "Netdev", "PacketFormats", "LibeventConcurrency",
        argumentParser,
      ],
      path: "Examples/Switch", swiftSettings: rules),
    .executableTarget(
      name: "Router",
      dependencies: [
        "ExampleSupport", "NetdevDevices", "Netdev", "Responder", "PacketFormats", "LibeventConcurrency",
        argumentParser,
      ],
      path: "Examples/Router", swiftSettings: rules),
    .executableTarget(
      name: "TrafficGenerator",
      dependencies: [
        "ExampleSupport", "NetdevProgram", "NetdevDevices", "Netdev", "PacketFormats", "LibeventConcurrency",
        argumentParser,
      ],
      path: "Examples/TrafficGenerator", swiftSettings: rules),
    .executableTarget(
      name: "CapturePackets",
      dependencies: [
        "ExampleSupport", "NetdevProgram", "NetdevDevices", "Netdev", "PacketFormats",
        argumentParser,
      ],
      path: "Examples/CapturePackets", swiftSettings: rules),
    .executableTarget(
      name: "KeyValueStore",
      dependencies: [
        "StoreService", "ExampleSupport", "NetdevProgram", "NetdevDevices", "Netdev", "Responder", "PacketFormats",
        argumentParser,
      ],
      path: "Examples/KeyValueStore", sources: ["KeyValueStore.swift"], swiftSettings: rules),
    // The example without its command line: the benchmarks time it.
    .target(
      name: "StoreService", dependencies: ["Netdev", "Responder", "PacketFormats"], path: "Examples/KeyValueStore",
      sources: ["Serving.swift", "Store.swift"], swiftSettings: rules),
    .executableTarget(
      name: "DHCPServer",
      dependencies: [
        "ExampleSupport", "NetdevProgram", "NetdevDevices", "Netdev", "Responder", "PacketFormats",
        "LibeventConcurrency",
        argumentParser,
      ],
      path: "Examples/DHCPServer", swiftSettings: rules),

    // What tests of several modules need: waiting, namespaces, logs, devices that lie, frames that say which they are.
    .target(name: "CTrafficSupport", path: "Tests/CTrafficSupport", cSettings: cRules),
    .target(name: "CTestSupport", path: "Tests/CTestSupport", cSettings: cRules),
    .target(
      name: "TestSupport",
      dependencies: [
        "CTrafficSupport", "CTestSupport", "NetdevTesting", "VirtioNet", "Virtio", "Netdev", "LibeventConcurrency",
        .product(name: "Logging", package: "swift-log"),
      ],
      path: "Tests/TestSupport", swiftSettings: rules),
    // Frames built byte by byte: a second opinion on what the parsers and the responder say.
    .target(
      name: "ReferenceFrames", dependencies: ["NetdevTesting", "PacketFormats"], path: "Tests/ReferenceFrames",
      swiftSettings: rules),
    // The ring between two threads: tests that the benchmarks run optimized, too.
    .target(
      name: "RingThreads", dependencies: ["NetdevTesting", "Virtio", "CNetdevSystem"], path: "Tests/RingThreads",
      swiftSettings: rules),
    .target(name: "ChildProcesses", path: "Tests/ChildProcesses", swiftSettings: rules),
    .executableTarget(
      name: "TopLevelProgram", dependencies: ["NetdevDevices", "Netdev"], path: "Tests/TopLevelProgram",
      swiftSettings: rules),

    // A target a module, and then what takes several of them.
    .testTarget(
      name: "VirtioTests", dependencies: ["RingThreads", "NetdevTesting", "PacketFormats", "Virtio", "CNetdevSystem"],
      swiftSettings: rules),
    .testTarget(
      name: "LibeventConcurrencyTests",
      dependencies: ["NetdevTesting", "LibeventConcurrency", "CNetdevSystem", "TestSupport", "CTestSupport"],
      swiftSettings: rules),
    .testTarget(
      name: "PacketFormatsTests", dependencies: ["ReferenceFrames", "NetdevTesting", "PacketFormats", "Netdev"],
      swiftSettings: rules),
    .testTarget(
      name: "ResponderTests",
      dependencies: [
        "ReferenceFrames", "NetdevTesting", "Responder", "PacketFormats", "Netdev", "LibeventConcurrency",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "VirtioDeviceTests",
      dependencies: [
        "VirtioDevice", "Virtio", "HostInterfaces", "LibeventConcurrency", "PacketFormats", "NetdevTesting",
        "CNetdevSystem", "TestSupport", "CTestSupport", "RingThreads",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "NetdevTests",
      dependencies: [
        "NetdevTesting", "NetdevDevices", "InProcess", "VirtioNet", "VirtioDevice", "Virtio", "Netdev", "PacketFormats",
        "LibeventConcurrency", "CLibevent", "CNetdevSystem", "TestSupport", "CTestSupport",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),
    .testTarget(
      name: "VirtioNetTests",
      dependencies: [
        "VirtioNet", "NetdevTesting", "NetdevDevices", "InProcess", "VirtioDevice", "Virtio", "Netdev", "PacketFormats",
        "LibeventConcurrency", "CNetdevSystem", "TestSupport",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "NetdevDevicesTests",
      dependencies: ["NetdevDevices", "PacketSocket", "LibeventConcurrency", "TestSupport", "CTestSupport"],
      swiftSettings: rules),
    .testTarget(
      name: "SimulationTests",
      dependencies: [
        "NetdevTesting", "NetdevDevices", "Netdev", "Virtio", "LibeventConcurrency", "CNetdevSystem", "CTestSupport",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "ConformanceTests",
      dependencies: [
        "NetdevTesting", "InProcess", "PacketSocket", "VirtioNet", "VirtioDevice", "Virtio", "Netdev", "PacketFormats",
        "LibeventConcurrency", "TestSupport", "CTestSupport", "CNetdevSystem",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "IntegrationTests",
      dependencies: [
        "EchoServer", "Forwarder", "Switch", "Router", "DHCPServer", "KeyValueStore", "CapturePackets",
        "TrafficGenerator",
        "TopLevelProgram", "TestSupport", "CTrafficSupport", "NetdevTesting",
        "NetdevDevices", "InProcess", "VirtioNet",
        "PacketSocket", "VirtioDevice",
        "Netdev", "Responder", "PacketFormats", "LibeventConcurrency", "CNetdevSystem",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "ExampleTests",
      dependencies: [
        "Switch", "DHCPServer", "Router", "TrafficGenerator", "CapturePackets", "StoreService", "NetdevTesting",
        "NetdevDevices", "InProcess", "VirtioNet", "VirtioDevice", "Netdev", "Responder", "PacketFormats",
        "LibeventConcurrency", "TestSupport",
      ],
      swiftSettings: rules),
    .testTarget(
      name: "VhostUserTests",
      dependencies: [
        "VhostUser", "NetdevDevices", "VirtioNet", "Virtio", "Netdev", "LibeventConcurrency", "PacketFormats",
        "CNetdevSystem", "TestSupport", "CTestSupport",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),
    .testTarget(
      name: "InteropTests",
      dependencies: [
        "EchoServer", "Forwarder", "TrafficGenerator", "ChildProcesses", "TestSupport", "VhostUser", "NetdevDevices",
        "VirtioNet", "Virtio", "Netdev", "Responder", "PacketFormats",
        "LibeventConcurrency", "CNetdevSystem", .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),
    .testTarget(
      name: "NetdevServiceTests",
      dependencies: [
        "NetdevService", "NetdevTesting", "NetdevDevices", "Netdev", "TestSupport",
        .product(name: "Logging", package: "swift-log"),
        .product(
          name: "ServiceLifecycle", package: "swift-service-lifecycle", condition: .when(traits: ["ServiceLifecycle"])),
        .product(
          name: "ServiceLifecycleTestKit", package: "swift-service-lifecycle",
          condition: .when(traits: ["ServiceLifecycle"])),
      ],
      swiftSettings: rules),
    .testTarget(
      name: "NetdevMetricsTests",
      dependencies: [
        "NetdevMetrics", "NetdevTesting", "Netdev", "LibeventConcurrency", "TestSupport",
        .product(name: "CoreMetrics", package: "swift-metrics", condition: .when(traits: ["Metrics"])),
        .product(name: "MetricsTestKit", package: "swift-metrics", condition: .when(traits: ["Metrics"])),
      ],
      swiftSettings: rules),
  ]
)
