// A key-value store's transport on the kernel's UDP sockets, and the client that asks: what the store on a network device is timed
// against.
//
// The server takes datagrams by `recvmmsg` and answers by `sendmmsg`, as many at a time as there are; the store itself is the caller's,
// so that both contenders have the same. It lives in a network namespace of its own. The client is one UDP socket, whoever answers.
#ifndef SWIFT_NETDEV_STORE_TWIN_H
#define SWIFT_NETDEV_STORE_TWIN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STORE_PORT 7000

// Writes the answer to a request, and returns its length.
typedef size_t (*store_answer)(void *context, const void *request, size_t length, void *answer, size_t room);

struct store_server;

// Starts a server on a thread of its own on one CPU, in a network namespace of its own, at STORE_PORT of any address. Returns NULL with
// errno set when it cannot.
struct store_server *store_start(int cpu, store_answer answer, void *context);

// The thread, whose namespace is at /proc/PID/task/THREAD/ns/net.
pid_t store_thread(const struct store_server *server);

// Ends the server and frees it; its namespace goes with it.
void store_stop(struct store_server *server);

struct store_client;

// A client of the server at an address, in host order. Returns NULL with errno set when it cannot.
struct store_client *store_client_open(uint32_t address, size_t keys, size_t value);

void store_client_close(struct store_client *client);

// Sets every key, one after the other, again and again until the first answer comes, for ten seconds. Returns 0 or -errno.
int store_client_fill(struct store_client *client);

// One request at a time, `count` times, by the calling thread on `cpu`; what each took, in nanoseconds. Returns 0, or -errno: -ETIMEDOUT
// when an answer did not come within a second, -EBADMSG when it was wrong.
int store_client_ping(struct store_client *client, int cpu, uint32_t *nanoseconds, size_t count);

// Up to `window` requests under way, `*count` in all or as many as a second allows, one in ten of which sets a value: `*count` says how
// many they were and `*nanoseconds` how long they took. Returns 0 or -errno.
int store_client_stream(struct store_client *client, int cpu, size_t window, size_t *count, uint64_t *nanoseconds);

#endif
