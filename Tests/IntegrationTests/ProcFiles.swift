import Foundation

/// Voluntary context switches so far of each thread of a process, by thread.
func voluntarySwitches(of process: pid_t) -> [String: Int] {
  let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? []
  var switches: [String: Int] = [:]
  for task in tasks {
    // A thread that has ended since is none.
    guard let text = try? String(contentsOfFile: "/proc/\(process)/task/\(task)/status", encoding: .utf8),
      let line = text.split(separator: "\n").first(where: { $0.hasPrefix("voluntary_ctxt_switches:") }),
      let count = Int(line.split(separator: "\t").last ?? "")
    else { continue }
    switches[task] = count
  }
  return switches
}
