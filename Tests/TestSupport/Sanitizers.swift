internal import Glibc

/// Whether this process runs under AddressSanitizer, which ends a process that is refused memory.
package let hasAddressSanitizer = unsafe dlsym(nil, "__asan_init") != nil
