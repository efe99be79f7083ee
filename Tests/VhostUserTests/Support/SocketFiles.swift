import Glibc
import Synchronization

/// Paths for sockets of scripted back-ends. Whoever listens removes its file; what a failed test or an exit in its middle
/// leaves, by whoever made it, goes with this process.
enum SocketFiles {
  private static let paths = Mutex<[String]>([])

  static func makePath() -> String {
    let path = "/tmp/netdev-scripted-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
    let isFirst = paths.withLock { paths in
      paths.append(path)
      return paths.count == 1
    }
    if isFirst { atexit { SocketFiles.removeAll() } }
    return path
  }

  private static func removeAll() {
    paths.withLock { paths in
      for path in paths { unsafe unlink(path) }
      paths = []
    }
  }
}
