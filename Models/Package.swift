// swift-tools-version: 6.2
import PackageDescription

let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableExperimentalFeature("Lifetimes"),
]

// Modules with the names of the library's: their files are the library's own, by links, beside stand-ins for what the models leave
// out. What they import as CNetdevSystem is here a module whose accesses to shared memory are the explorer's.
let package = Package(
  name: "swift-netdev-models",
  targets: [
    .target(name: "CCoroutine"),
    .target(name: "Explorer", dependencies: ["CCoroutine"], swiftSettings: rules),
    .target(name: "CNetdevSystem", dependencies: ["Explorer"], swiftSettings: rules),
    .target(name: "LibeventConcurrency", dependencies: ["Explorer"], swiftSettings: rules),
    .target(name: "Netdev", dependencies: ["Explorer", "CNetdevSystem", "LibeventConcurrency"], swiftSettings: rules),
    .target(name: "VirtioNet", dependencies: ["Netdev"], swiftSettings: rules),
    .target(
      name: "VhostUser", dependencies: ["Explorer", "CNetdevSystem", "Netdev", "VirtioNet"], swiftSettings: rules),
    .target(name: "Virtio", dependencies: ["Explorer", "CNetdevSystem"], swiftSettings: rules),
    .executableTarget(
      name: "Models", dependencies: ["Explorer", "LibeventConcurrency", "Netdev", "VhostUser", "Virtio"],
      swiftSettings: rules),
  ]
)
