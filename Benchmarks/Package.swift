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
  dependencies: [
    .package(name: "swift-netdev", path: "..")
  ],
  targets: [
    // The same ring core written in C: what Swift is measured against, instruction by instruction.
    .target(name: "CRingTwin", cSettings: cRules),
    // Counts every allocation of the executable that it is linked into.
    .target(name: "CAllocationCounter", cSettings: cRules),

    // Counted executables: `count.sh` runs them under callgrind and compares with its table of bounds.
    .executableTarget(
      name: "CountRing",
      dependencies: ["CRingTwin", "CAllocationCounter", .product(name: "Virtio", package: "swift-netdev")],
      swiftSettings: rules),
    .executableTarget(
      name: "CountQueue",
      dependencies: [
        "CAllocationCounter", .product(name: "Netdev", package: "swift-netdev"),
        .product(name: "NetdevDevices", package: "swift-netdev"),
      ],
      swiftSettings: rules),

    // Both rings through the same vectors: the twin is only a measure while it does the same work.
    .testTarget(
      name: "RingTwinTests", dependencies: ["CRingTwin", .product(name: "Virtio", package: "swift-netdev")],
      swiftSettings: rules),
  ]
)
