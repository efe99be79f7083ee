// swift-tools-version: 6.2
import PackageDescription

/// The rules of the main package, without strict memory safety: what is here calls C on every other line.
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

func netdev(_ product: String) -> Target.Dependency { .product(name: product, package: "swift-netdev") }

let package = Package(
  name: "swift-netdev-faults",
  dependencies: [
    // A build in which system calls can be refused.
    .package(name: "swift-netdev", path: "..", traits: ["Testing"]),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
  ],
  targets: [
    // The other sides of devices (a switch, sockets of this host), libevent's calls, and what /proc says of this process.
    .target(name: "CFaultSupport", cSettings: cRules, linkerSettings: [.linkedLibrary("dl")]),
    // One life of a device, in a process: opened, used, lost, back, closed; and many of them.
    .executableTarget(
      name: "FaultScenarios",
      dependencies: [
        "CFaultSupport", netdev("NetdevDevices"), netdev("Netdev"), netdev("Responder"), netdev("PacketFormats"),
        netdev("LibeventConcurrency"), .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules),
  ]
)
