import Foundation

private let areFewer = ProcessInfo.processInfo.environment["NETDEV_FEWER"] == "1"

/// How often a test repeats something: as often as it says, or a tenth of that with NETDEV_FEWER=1, as the sanitizers' runs have it,
/// where each time takes ten times as long.
public func repetitions(_ count: Int) -> Int { areFewer ? count / 10 : count }
