// swift-tools-version: 6.2
import PackageDescription

let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("InferIsolatedConformances"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

func netdev(_ product: String) -> Target.Dependency { .product(name: product, package: "swift-netdev") }

let package = Package(
  name: "swift-netdev-simulate",
  dependencies: [
    // A build whose turns can be held up between two steps that belong together, and in which faults of our own are planted.
    .package(name: "swift-netdev", path: "..", traits: ["Testing"]),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
  ],
  targets: [
    .executableTarget(
      name: "Simulate",
      dependencies: [
        netdev("NetdevTesting"), netdev("NetdevDevices"), netdev("Netdev"), netdev("VirtioNet"), netdev("Virtio"),
        netdev("LibeventConcurrency"), .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: rules)
  ]
)
