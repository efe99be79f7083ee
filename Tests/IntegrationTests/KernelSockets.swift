import Foundation
import Glibc
import Synchronization

/// Sockets of the kernel at the far end of a wire, blocking: for a thread of their own.
enum KernelSockets {
  /// Sends each datagram back to where it came from, over IPv4 and IPv6, until told to stop.
  ///
  /// - Returns: how many it sent back.
  static func echoDatagrams(
    port: UInt16, ready: borrowing Atomic<Bool>, until stop: borrowing Atomic<Bool>
  ) throws -> Int {
    let descriptor = try open(SOCK_DGRAM, port)
    defer { close(descriptor) }
    // Room for every datagram that a test has under way at a time: with the usual 200 KB the kernel drops some of 128
    // long ones whenever this thread waits for its turn. Beyond the system's limit, which takes root, as the namespace does.
    var room: CInt = 4 << 20
    guard unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, socklen_t(MemoryLayout<CInt>.size)) == 0
    else { throw POSIXError(.EPERM) }
    ready.store(true, ordering: .releasing)
    var patience = timeval(tv_sec: 0, tv_usec: 50_000)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    var buffer = [UInt8](repeating: 0, count: 65_536)
    var answered = 0
    while !stop.load(ordering: .acquiring) {
      var peer = sockaddr_in6()
      var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
      unsafe withUnsafeMutablePointer(to: &peer) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
          let count = unsafe recvfrom(descriptor, &buffer, buffer.count, 0, address, &length)
          guard count >= 0 else { return }
          if unsafe sendto(descriptor, buffer, count, 0, address, length) == count { answered += 1 }
        }
      }
    }
    return answered
  }

  /// Waits for one connection and writes what it brings to a file, until its end.
  static func receiveStream(port: UInt16, into path: String, listening: borrowing Atomic<Bool>) throws {
    let listener = try open(SOCK_STREAM, port)
    defer { close(listener) }
    guard listen(listener, 1) == 0 else { throw POSIXError(.EIO) }
    listening.store(true, ordering: .releasing)
    let connection = accept(listener, nil, nil)
    guard connection >= 0 else { throw POSIXError(.EIO) }
    defer { close(connection) }
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    unsafe setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    guard FileManager.default.createFile(atPath: path, contents: nil), let file = FileHandle(forWritingAtPath: path)
    else { throw CocoaError(.fileWriteUnknown) }
    var buffer = [UInt8](repeating: 0, count: 1 << 18)
    while true {
      let count = unsafe read(connection, &buffer, buffer.count)
      guard count >= 0 else { throw POSIXError(.EIO) }
      guard count > 0 else { break }
      try file.write(contentsOf: Data(buffer[..<count]))
    }
    try file.close()
  }

  /// A socket for both families, bound to a port.
  private static func open(_ kind: __socket_type, _ port: UInt16) throws -> CInt {
    let descriptor = socket(AF_INET6, CInt(kind.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw POSIXError(.EIO) }
    var both: CInt = 0
    unsafe setsockopt(descriptor, CInt(IPPROTO_IPV6), IPV6_V6ONLY, &both, socklen_t(MemoryLayout<CInt>.size))
    var own = sockaddr_in6()
    own.sin6_family = sa_family_t(AF_INET6)
    own.sin6_port = port.bigEndian
    let result = unsafe withUnsafePointer(to: &own) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
      }
    }
    guard result == 0 else {
      close(descriptor)
      throw POSIXError(.EADDRINUSE)
    }
    return descriptor
  }
}
