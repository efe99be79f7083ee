import CNetdevSystem
import Foundation
import Glibc
import Synchronization
@testable import VhostUser

extension ScriptedBackend {
  /// The most descriptors that the kernel lets through with one message (SCM_MAX_FD).
  static let maximumDescriptors = 253

  /// Sends so many copies of a descriptor, eight times what the front-end has room for.
  static func sendMany(_ bytes: [UInt8], descriptor: CInt, _ connection: CInt) -> Bool {
    // A control message: its length, level and kind, then the descriptors.
    var control = PayloadWriter()
    control.append(16 + maximumDescriptors * MemoryLayout<CInt>.size)
    control.append(SOL_SOCKET)
    control.append(CInt(1))  // SCM_RIGHTS
    for _ in 0..<maximumDescriptors { control.append(descriptor) }
    // Whole words, as CMSG_SPACE has it.
    while control.bytes.count % MemoryLayout<Int>.size != 0 { control.append(UInt8(0)) }
    var (data, ancillary) = (bytes, control.bytes)
    return unsafe data.withUnsafeMutableBytes { data in
      unsafe ancillary.withUnsafeMutableBytes { ancillary in
        var vector = unsafe iovec(iov_base: data.baseAddress, iov_len: data.count)
        return unsafe withUnsafeMutablePointer(to: &vector) { vector in
          var message = unsafe msghdr()
          unsafe message.msg_iov = vector
          unsafe message.msg_iovlen = 1
          unsafe message.msg_control = ancillary.baseAddress
          unsafe message.msg_controllen = ancillary.count
          return unsafe sendmsg(connection, &message, CInt(MSG_NOSIGNAL)) == data.count
        }
      }
    }
  }
}
