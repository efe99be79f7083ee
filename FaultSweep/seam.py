#!/usr/bin/env python3
"""Finds system calls of the library that do not go by the seam (netdev_fault.h): naked ones in C, and any in Swift.

A call that the sweep cannot refuse is an error path that nobody has ever run. The testing product is left out: it is no part of
what programs ship.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "Sources"
CALLS = (
    "accept4? bind close connect dup[23]? epoll_create1? epoll_ctl epoll_p?wait eventfd fallocate fcntl flock fork fstat "
    "ftruncate getpeername getsockname getsockopt ioctl kill listen lseek l?stat madvise memfd_create mkdir mlock mmap mprotect "
    "mremap munmap open(?:at)? pipe2? p?poll prctl pthread_create pthread_attr_setaffinity_np pthread_setaffinity_np "
    "p?readv?2? process_vm_readv process_vm_writev recv(?:from|msg|mmsg)? rename(?:at2?)? rmdir sched_setaffinity select send(?:to|msg|mmsg)? "
    "setns setsockopt shutdown sigaction signalfd socket socketpair statx syscall timerfd_create timerfd_settime unlink(?:at)? unshare "
    "p?writev?2?").split()
NAMES = "|".join(CALLS)
# A name and its parenthesis, not a method, a part of a name, or a declaration.
C_CALL = re.compile(rf"(?<![\w.>#])({NAMES})\(")
SWIFT_CALL = re.compile(rf"\bGlibc\.({NAMES})\(|(?<![\w.`])({NAMES})\(")
DECLARATION = re.compile(r"\bfunc\s+$")


def strip(text, line_comment="//"):
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"), text, flags=re.S)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    return [line.split(line_comment)[0] for line in text.split("\n")]


def naked():
    for path in sorted(ROOT.glob("CNetdevSystem/**/*.[ch]")):
        if path.stem == "netdev_fault":
            continue
        for number, line in enumerate(strip(path.read_text()), 1):
            for found in C_CALL.finditer(line):
                yield path, number, found.group(1)
    for path in sorted(ROOT.glob("**/*.swift")):
        text = path.read_text()
        # Only what imports the C library can call it; methods of the same names are everywhere.
        if "import Glibc" not in text or "NetdevTesting" in path.parts:
            continue
        folder = "".join(other.read_text() for other in path.parent.glob("*.swift"))
        own = set(re.findall(r"func (\w+)[<(]", folder)) | set(re.findall(r"(?:let|var) (\w+) *[:=]", text))
        for number, line in enumerate(strip(text), 1):
            for found in SWIFT_CALL.finditer(line):
                name = found.group(1) or found.group(2)
                if found.group(2) and (name in own or DECLARATION.search(line[:found.start()])):
                    continue
                yield path, number, name


found = list(naked())
for path, number, name in found:
    print(f"{path.relative_to(ROOT.parent)}:{number}: {name} does not go by the seam: see netdev_fault.h")
sys.exit(1 if found else 0)
