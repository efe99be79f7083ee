// swift-tools-version: 6.2
import PackageDescription

/// The rules of the main package, without strict memory safety: a fuzzer hands raw memory over on purpose.
let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("InferIsolatedConformances"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

/// `main` is libFuzzer's: `fuzz.sh` builds with `--sanitize=fuzzer`, and with testing enabled, for what is not public.
let fuzzer = rules + [.unsafeFlags(["-parse-as-library"])]

let cRules: [CSetting] = [.define("_GNU_SOURCE"), .treatAllWarnings(as: .error)]

func netdev(_ product: String) -> Target.Dependency { .product(name: product, package: "swift-netdev") }

let package = Package(
  name: "swift-netdev-fuzz",
  dependencies: [
    .package(name: "swift-netdev", path: ".."),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
  ],
  targets: [
    // Sends more descriptors than anybody may.
    .target(name: "CFuzzSupport", cSettings: cRules),
    // How inputs are read, what a broken promise looks like, memory with fences.
    .target(name: "FuzzSupport", swiftSettings: rules),

    // One fuzzer each: what comes from outside by one way.
    .executableTarget(
      name: "FuzzMessages",
      dependencies: [
        "FuzzSupport", "CFuzzSupport", netdev("NetdevTesting"), netdev("VhostUser"), netdev("VirtioNet"),
        netdev("Virtio"), netdev("Netdev"),
        netdev("LibeventConcurrency"), .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: fuzzer),
    .executableTarget(
      name: "FuzzRings",
      dependencies: [
        "FuzzSupport", netdev("NetdevTesting"), netdev("VirtioDevice"), netdev("Virtio"), netdev("LibeventConcurrency"),
      ],
      swiftSettings: fuzzer),
    .executableTarget(
      name: "FuzzFrames", dependencies: ["FuzzSupport", netdev("Responder"), netdev("PacketFormats")],
      swiftSettings: fuzzer),
    .executableTarget(
      name: "FuzzURLs",
      dependencies: [
        "FuzzSupport", netdev("NetdevDevices"), netdev("VhostUser"), netdev("Virtio"), netdev("Netdev"),
        netdev("PacketFormats"),
      ],
      swiftSettings: fuzzer),
  ]
)
