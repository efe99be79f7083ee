import PacketFormats
import ReferenceFrames
import Responder

/// Hands the bytes to a responder and takes them back.
func answer(_ responder: inout Responder, _ bytes: inout [UInt8], length: Int? = nil) -> Responder.Answer {
  let length = length ?? bytes.count
  var span = bytes.mutableSpan
  // Bytes have no padding between them that could be uninitialised.
  var raw = unsafe span.mutableBytes
  return responder.answer(&raw, length: length)
}

/// A responder at ``Here``.
func makeResponder(udpEcho: UDPEchoPorts = .all) throws -> Responder {
  try makeResponder(addresses: ["10.0.0.1/24"], udpEcho: udpEcho)
}

func makeResponder(addresses: [String], udpEcho: UDPEchoPorts = .all) throws -> Responder {
  try Responder(macAddress: Here.mac, addresses: addresses.compactMap(IPv4Network.init), udpEcho: udpEcho)
}

/// A responder at ``Here`` with IPv6 alone.
func makeIPv6Responder(
  _ addresses: [String] = ["fd00::1/64"], udpEcho: UDPEchoPorts = .all
) throws -> Responder {
  try Responder(macAddress: Here.mac, ipv6Addresses: addresses.compactMap(IPv6Network.init), udpEcho: udpEcho)
}
