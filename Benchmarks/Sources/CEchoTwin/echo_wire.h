// What the two ends of the wire agree on.
#ifndef SWIFT_NETDEV_ECHO_WIRE_H
#define SWIFT_NETDEV_ECHO_WIRE_H

#include <stdint.h>

// The virtio-net header in front of each frame (VIRTIO 1.4 §5.1.6), and the headers of a frame: Ethernet, IPv4, UDP.
#define ECHO_HEADER 12
#define ECHO_HEADERS (14 + 20 + 8)

// Of whoever sits at the TAP descriptor.
static const uint8_t echo_descriptor_mac[6] = {0x02, 0, 0, 0, 0, 0x02};

#endif
