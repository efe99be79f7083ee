internal import Glibc

/// How many descriptors this process has open.
public func openDescriptors() -> Int {
  guard let folder = opendir("/proc/self/fd") else { violated("/proc can be read") }
  defer { closedir(folder) }
  var count = 0
  while readdir(folder) != nil { count += 1 }
  return count
}
