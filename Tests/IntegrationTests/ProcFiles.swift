import Foundation

/// Voluntary context switches so far of each thread of this process whose name begins so, by thread.
func voluntarySwitches(ofThreadsNamed prefix: String) -> [String: Int] {
  let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
  var switches: [String: Int] = [:]
  for task in tasks {
    guard let text = try? String(contentsOfFile: "/proc/self/task/\(task)/status", encoding: .utf8) else { continue }
    let lines = text.split(separator: "\n")
    guard let name = lines.first(where: { $0.hasPrefix("Name:") }),
      name.dropFirst(5).drop(while: { $0 == "\t" }).hasPrefix(prefix),
      let line = lines.first(where: { $0.hasPrefix("voluntary_ctxt_switches:") }),
      let count = Int(line.split(separator: "\t").last ?? "")
    else { continue }
    switches[task] = count
  }
  return switches
}

/// Descriptors of this process on /dev/net/tun.
func openTunDescriptors() -> Int {
  let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
  return names.count { name in
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")) == "/dev/net/tun"
  }
}
