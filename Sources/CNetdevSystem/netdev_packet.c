#include "netdev_packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netdev_descriptor.h"
#include "netdev_fault.h"

// Newer than the headers of some systems.
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif

// The header that the kernel puts in front of frames with PACKET_VNET_HDR: the ten bytes of virtio before version 1.
typedef struct virtio_net_hdr offload_header;

int netdev_packet_open(void) {
  // Without a protocol nothing is heard before the socket is bound.
  return netdev_descriptor_above_stdio(NETDEV_CALL(socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

int netdev_packet_look(int descriptor, const char *name, struct netdev_packet_interface *found) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (strlen(name) >= IFNAMSIZ) return -ENAMETOOLONG;
  strcpy(request.ifr_name, name);
  if (NETDEV_CALL(ioctl, descriptor, SIOCGIFINDEX, &request) < 0) return -errno;
  found->index = request.ifr_ifindex;
  if (NETDEV_CALL(ioctl, descriptor, SIOCGIFMTU, &request) < 0) return -errno;
  found->mtu = request.ifr_mtu;
  if (NETDEV_CALL(ioctl, descriptor, SIOCGIFHWADDR, &request) < 0) return -errno;
  found->is_ethernet = request.ifr_hwaddr.sa_family == ARPHRD_ETHER || request.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK;
  memcpy(found->address, request.ifr_hwaddr.sa_data, sizeof found->address);
  return 0;
}

uint64_t netdev_packet_namespace(void) {
  struct stat found;
  return NETDEV_CALL(stat, "/proc/thread-self/ns/net", &found) < 0 ? 0 : found.st_ino;
}

bool netdev_packet_has_interface(const char *name) { return if_nametoindex(name) != 0; }

void netdev_packet_names(char *names, size_t length) {
  if (length == 0) return;
  names[0] = 0;
  struct if_nameindex *all = if_nameindex();
  if (!all) return;
  size_t used = 0;
  for (struct if_nameindex *one = all; one->if_name && used < length; one++) {
    int added = snprintf(names + used, length - used, "%s%s", used == 0 ? "" : ", ", one->if_name);
    if (added < 0) break;
    used += (size_t)added;
  }
  if_freenameindex(all);
}

// MARK: - Setting up

uint32_t netdev_packet_slots_per_block(uint32_t slot_size) {
  uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
  return slot_size < page ? page / slot_size : 1;
}

size_t netdev_packet_length(struct netdev_packet_rings rings) {
  return (size_t)rings.slot_size * ((size_t)rings.receive_slots + rings.transmit_slots);
}

// The kernel's blocks, in a program's address space one behind the other.
static struct tpacket_req ring_of(uint32_t slot_size, uint32_t slots) {
  uint32_t per_block = netdev_packet_slots_per_block(slot_size);
  return (struct tpacket_req){.tp_block_size = slot_size * per_block,
                              .tp_block_nr = slots / per_block,
                              .tp_frame_size = slot_size,
                              .tp_frame_nr = slots};
}

static int set_number(int descriptor, int option, int value) {
  return NETDEV_CALL(setsockopt, descriptor, SOL_PACKET, option, &value, sizeof value) < 0 ? -errno : 0;
}

int netdev_packet_prepare(int descriptor, struct netdev_packet_rings rings, void **memory, int *step) {
  struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  struct sock_fprog filter = {.len = 1, .filter = nothing};
  *step = netdev_packet_step_filter;
  if (NETDEV_CALL(setsockopt, descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) < 0) return -errno;
  *step = netdev_packet_step_version;
  int result = set_number(descriptor, PACKET_VERSION, TPACKET_V2);
  if (result < 0) return result;
  // Says of a received frame which checksum is to be completed, and where; and of one to transmit how much of it the kernel
  // shall copy. Kernels before 4.20 hand the rest on as it lies in the ring: who received such a frame on this machine would
  // read what its slot holds next.
  *step = netdev_packet_step_header;
  result = set_number(descriptor, PACKET_VNET_HDR, 1);
  if (result < 0) return result;
  // A frame that the kernel does not like is skipped: it would stop the ring.
  *step = netdev_packet_step_loss;
  result = set_number(descriptor, PACKET_LOSS, 1);
  if (result < 0) return result;
  *step = netdev_packet_step_outgoing;
  result = set_number(descriptor, PACKET_IGNORE_OUTGOING, 1);
  // Kernels before 4.20, and where it is refused: these frames are shown, with what they are.
  if (result < 0 && !netdev_error_is_refusal(-result)) return result;
  *step = netdev_packet_step_receive_ring;
  struct tpacket_req ring = ring_of(rings.slot_size, rings.receive_slots);
  if (NETDEV_CALL(setsockopt, descriptor, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) < 0) return -errno;
  *step = netdev_packet_step_transmit_ring;
  ring = ring_of(rings.slot_size, rings.transmit_slots);
  if (NETDEV_CALL(setsockopt, descriptor, SOL_PACKET, PACKET_TX_RING, &ring, sizeof ring) < 0) return -errno;
  *step = netdev_packet_step_map;
  size_t length = netdev_packet_length(rings);
  void *mapped = NETDEV_CALL(mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (mapped == MAP_FAILED) return -errno;
  *memory = mapped;
  return 0;
}

int netdev_packet_bind(int descriptor, int index) {
  struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index};
  return NETDEV_CALL(bind, descriptor, (struct sockaddr *)&name, sizeof name) < 0 ? -errno : 0;
}

int netdev_packet_bound_to(int descriptor) {
  struct sockaddr_ll name;
  socklen_t length = sizeof name;
  memset(&name, 0, sizeof name);
  if (NETDEV_CALL(getsockname, descriptor, (struct sockaddr *)&name, &length) < 0) return -errno;
  // The kernel says -1 when the interface is gone.
  return name.sll_ifindex > 0 ? name.sll_ifindex : -ENODEV;
}

int netdev_packet_promise_all(int descriptor, int index) {
  struct packet_mreq membership = {.mr_ifindex = index, .mr_type = PACKET_MR_PROMISC};
  int result =
      NETDEV_CALL(setsockopt, descriptor, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership);
  return result < 0 ? -errno : 0;
}

int netdev_packet_join(int descriptor, int group) {
  int kind = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
  if (group < 0) kind |= PACKET_FANOUT_FLAG_UNIQUEID;
  int result = set_number(descriptor, PACKET_FANOUT, (int)((unsigned)kind << 16 | (group < 0 ? 0 : (unsigned)group)));
  if (result < 0 || group >= 0) return result < 0 ? result : group;
  int joined = 0;
  socklen_t length = sizeof joined;
  if (NETDEV_CALL(getsockopt, descriptor, SOL_PACKET, PACKET_FANOUT, &joined, &length) < 0) return -errno;
  return joined & 0xffff;
}

int netdev_packet_begin(int descriptor, bool all) {
  // All of a frame, unless it is for another station.
  struct sock_filter own[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OTHERHOST, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
  };
  struct sock_fprog filter = {.len = sizeof own / sizeof own[0], .filter = own};
  int unused = 0;
  int result = all ? NETDEV_CALL(setsockopt, descriptor, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused)
                   : NETDEV_CALL(setsockopt, descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
  return result < 0 ? -errno : 0;
}

void netdev_packet_set_room(int descriptor, int bytes) {
  if (NETDEV_CALL(setsockopt, descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) == 0) return;
  (void)NETDEV_CALL(setsockopt, descriptor, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

// MARK: - Serving

int netdev_packet_send(int descriptor) {
  ssize_t sent;
  do {
    sent = NETDEV_CALL(sendto, descriptor, NULL, 0, MSG_DONTWAIT, NULL, 0);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

int netdev_packet_error(int descriptor) {
  int error = 0;
  socklen_t length = sizeof error;
  if (NETDEV_CALL(getsockopt, descriptor, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return -errno;
  return -error;
}

int64_t netdev_packet_drops(int descriptor) {
  struct tpacket_stats counts;
  memset(&counts, 0, sizeof counts);
  socklen_t length = sizeof counts;
  if (NETDEV_CALL(getsockopt, descriptor, SOL_PACKET, PACKET_STATISTICS, &counts, &length) < 0) return -errno;
  return counts.tp_drops;
}

int netdev_packet_watch_releases(int descriptor) {
  int watch = netdev_descriptor_above_stdio(NETDEV_CALL(epoll_create1, EPOLL_CLOEXEC));
  if (watch < 0) return watch;
  // The kernel tells of memory for sending that has become free, which is when a frame has left. Level-triggered it would
  // always be true.
  struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
  if (NETDEV_CALL(epoll_ctl, watch, EPOLL_CTL_ADD, descriptor, &event) == 0) return watch;
  int error = errno;
  netdev_close(watch);
  return -error;
}

int netdev_packet_take_releases(int descriptor) {
  struct epoll_event event;
  int count;
  do {
    count = NETDEV_CALL(epoll_wait, descriptor, &event, 1, 0);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

// MARK: - Slots

bool netdev_packet_read(const void *slot, uint32_t slot_size, struct netdev_packet_frame *frame) {
  uint32_t status = netdev_load_acquire_u32(slot);
  if (!(status & TP_STATUS_USER)) return false;
  struct tpacket2_hdr header;
  struct sockaddr_ll source;
  offload_header offload;
  memcpy(&header, slot, sizeof header);
  memcpy(&source, (const char *)slot + TPACKET_ALIGN(sizeof header), sizeof source);
  memset(&offload, 0, sizeof offload);
  frame->offset = header.tp_mac;
  frame->captured = header.tp_snaplen;
  frame->length = header.tp_len;
  // What cannot be is a frame of which nothing was captured.
  if (frame->offset < sizeof header + sizeof source + sizeof offload || frame->offset > slot_size ||
      frame->captured > slot_size - frame->offset)
    frame->captured = 0;
  else
    memcpy(&offload, (const char *)slot + frame->offset - sizeof offload, sizeof offload);
  frame->has_tag = (status & TP_STATUS_VLAN_VALID) != 0;
  frame->tag = header.tp_vlan_tci;
  frame->tag_protocol = status & TP_STATUS_VLAN_TPID_VALID ? header.tp_vlan_tpid : ETH_P_8021Q;
  frame->is_outgoing = source.sll_pkttype == PACKET_OUTGOING;
  frame->lacks_checksum = (status & TP_STATUS_CSUMNOTREADY) != 0 || (offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
  frame->has_segments = offload.gso_type != VIRTIO_NET_HDR_GSO_NONE;
  frame->checksum_start = offload.csum_start;
  frame->checksum_offset = offload.csum_offset;
  return true;
}

// Where the kernel looks for a frame to transmit, and its offload header in front of it.
#define TRANSMIT_OFFSET (TPACKET2_HDRLEN - sizeof(struct sockaddr_ll))

_Static_assert(TRANSMIT_OFFSET + sizeof(offload_header) == NETDEV_PACKET_TRANSMIT_OFFSET, "behind both headers");

void netdev_packet_publish(void *slot, uint32_t length) {
  struct tpacket2_hdr *header = slot;
  // No offload; all of the frame is to be copied.
  offload_header offload = {.hdr_len = (uint16_t)length};
  memcpy((char *)slot + TRANSMIT_OFFSET, &offload, sizeof offload);
  header->tp_len = length + (uint32_t)sizeof offload;
  netdev_store_release_u32(&header->tp_status, TP_STATUS_SEND_REQUEST);
}
