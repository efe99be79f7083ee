// The seam by which every system call of the library goes: a build for tests (package trait Testing) refuses a chosen call with
// a chosen error number, or cuts it short. In other builds the macros are the calls themselves, and the functions do nothing.
#ifndef SWIFT_NETDEV_FAULT_H
#define SWIFT_NETDEV_FAULT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whether this build can refuse calls.
bool netdev_fault_is_built(void);

// Names what the program does from here on. Calls are counted afresh in each phase. The name is copied (23 bytes are kept).
void netdev_fault_phase(const char *phase);

// What to refuse, instead of what the environment's NETDEV_FAULT says; NULL for nothing. Returns false when it cannot be read.
//
// PHASE/FUNCTION:CALL@CALLER/FIRST/COUNT/ERROR: in that phase (* for any), of the calls to CALL that FUNCTION (* for any) makes for the code
// that returns to CALLER (hexadecimal, from the start of its image; * for any), COUNT calls from the FIRST-th on (1, …;
// COUNT * for all) fail with error number ERROR. With ERROR 0 the call is made with half its length.
bool netdev_fault_plan(const char *plan);

// Calls that have been refused or cut short so far.
uint64_t netdev_fault_fired(void);

// Every call so far, when the environment's NETDEV_FAULT_RECORD names a file: written there, a line for each phase, call site
// and thread: "PHASE FUNCTION:CALL@CALLER COUNT THREAD", with "cut" after it where the call can be cut short. It is written at
// the end of the process, too.
void netdev_fault_write_record(void);

// Whether the environment's NETDEV_PLANT asks for this fault of our own, by which a sweep shows that it finds such faults.
bool netdev_fault_is_planted(const char *name);

// What is called on this thread at each place where another thread could come between two steps that belong together: after the
// fences of rings, before doorbells. NULL for nothing. Only builds for tests have such places.
void netdev_fault_set_place(void (*hold)(void));

// Such a place.
void netdev_fault_place(void);

// From true to the false that ends it nobody comes between at these places of the calling thread: they may lie under a lock of the
// caller's, which the others want. The two nest.
void netdev_fault_forbid_places(bool forbidden);

// Places of the calling thread at which nobody came between for that reason, so far.
uint64_t netdev_fault_spared_places(void);

// What decides on this thread, beside the plan, whether a call is refused: with an error number, or 0 to let it be made; and, asked
// with `cuts`, whether it is made with half its length. NULL for nothing.
void netdev_fault_set_chooser(int (*choose)(const char *call, bool cuts));

// The seam for calls of others that a test interposes; sets errno when the call shall be refused.
bool netdev_fault_refuses(const char *function, const char *call, const void *caller);

// Half of `length`, but not nothing, when the call shall be cut short.
size_t netdev_fault_cut(const char *function, const char *call, const void *caller, size_t length);

#ifdef NETDEV_TESTING

// A call that returns -1 (or MAP_FAILED) and sets errno.
#define NETDEV_CALL(call, ...)                                                                                       \
  (netdev_fault_refuses(__func__, #call, __builtin_return_address(0)) ? (__typeof__(call(__VA_ARGS__)))-1            \
                                                                      : call(__VA_ARGS__))

// A call that returns its error number.
#define NETDEV_CALL_NUMBER(call, ...) \
  (netdev_fault_refuses(__func__, #call, __builtin_return_address(0)) ? errno : call(__VA_ARGS__))

// A call that has done its work even when it reports an error: close, munmap.
#define NETDEV_CALL_DONE(call, ...)                                                                        \
  ({                                                                                                       \
    __typeof__(call(__VA_ARGS__)) result_ = call(__VA_ARGS__);                                             \
    netdev_fault_refuses(__func__, #call, __builtin_return_address(0)) ? (__typeof__(result_))-1 : result_; \
  })

// The length to hand to the next `call`.
#define NETDEV_CUT(call, length) netdev_fault_cut(__func__, #call, __builtin_return_address(0), length)

// A fault of our own.
#define NETDEV_PLANTED(name) netdev_fault_is_planted(name)

// A place where others may come between.
#define NETDEV_PLACE() netdev_fault_place()

#else

#define NETDEV_CALL(call, ...) call(__VA_ARGS__)
#define NETDEV_CALL_NUMBER(call, ...) call(__VA_ARGS__)
#define NETDEV_CALL_DONE(call, ...) call(__VA_ARGS__)
#define NETDEV_CUT(call, length) (length)
#define NETDEV_PLANTED(name) false
#define NETDEV_PLACE() ((void)0)

#endif

#endif
