public import Netdev
import PacketFormats
public import Responder

/// The store on one queue: what is asked at its port, and ARP and ping.
public func serve(_ queue: isolated NetworkQueue, _ given: Responder, at port: UInt16) async throws {
  var (store, responder) = (Store(), given)
  let addresses = given.addresses.map { $0.address }
  for await var packet in queue.packets {
    if let (flow, answer) = packet.withBytes({ frame -> (UDPFrame, [UInt8])? in
      guard let (flow, payload) = try? UDPFrame.decode(frame), flow.destinationPort == port,
        addresses.contains(flow.destination), flow.destinationMAC == given.macAddress,
        (try? flow.checkAnswerable()) != nil
      else { return nil }
      return (flow, store.answer(frame.extracting(payload)))
    }) {
      _ = try queue.trySubmit(flow.reversed.makePacket(payload: answer, in: queue.pool))
    } else if responder.answer(&packet) {
      _ = try queue.trySubmit(consume packet)
    }
  }
}
