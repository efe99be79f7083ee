#!/usr/bin/env python3
"""Finds system calls of the library that do not go by the seam (netdev_fault.h): naked ones in C, and any in Swift.

A call that the sweep cannot refuse is an error path that nobody has ever run. The testing product is left out: it is no part of
what programs ship, and so is what a program does for itself, signals and standard output. And finds what simulated worlds and the sweep do not agree about: which calls are refused, and how.
"""

import pathlib
import re
import sys

sys.dont_write_bytecode = True
import faults  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent / "Sources"
CALLS = (
    "accept4? bind close connect dup[23]? epoll_create1? epoll_ctl epoll_p?wait eventfd fallocate fcntl flock fork fstat "
    "ftruncate getpeername getsockname getsockopt ioctl kill listen lseek l?stat madvise memfd_create mkdir mlock mmap mprotect "
    "mremap munmap open(?:at)? pipe2? p?poll prctl pthread_create pthread_attr_setaffinity_np pthread_setaffinity_np "
    "p?readv?2? process_vm_readv process_vm_writev recv(?:from|msg|mmsg)? rename(?:at2?)? rmdir sched_[gs]etaffinity select send(?:to|msg|mmsg)? "
    "setns setsockopt shutdown sigaction signalfd socket socketpair statx syscall timerfd_create timerfd_settime unlink(?:at)? unshare "
    "p?writev?2?").split()
NAMES = "|".join(CALLS)
# Worlds have a backend of their own in libevent's place, no threads, and no packet sockets. What asks for the process behind a
# socket they leave alone (SimulatedFaults).
NOT_IN_WORLDS = set(
    "epoll_create1 epoll_ctl epoll_ctl_add epoll_ctl_mod epoll_ctl_del epoll_wait timerfd_create timerfd_settime pthread_create "
    "sigaction sendto getsockopt syscall".split())
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
        if "import Glibc" not in text or {"NetdevTesting", "NetdevProgram"} & set(path.parts):
            continue
        folder = "".join(other.read_text() for other in path.parent.glob("*.swift"))
        own = set(re.findall(r"func (\w+)[<(]", folder)) | set(re.findall(r"(?:let|var) (\w+) *[:=]", text))
        for number, line in enumerate(strip(text), 1):
            for found in SWIFT_CALL.finditer(line):
                name = found.group(1) or found.group(2)
                if found.group(2) and (name in own or DECLARATION.search(line[:found.start()])):
                    continue
                yield path, number, name


def errors_apart():
    """Where worlds (SimulatedFaults.swift) and the sweep (faults.py) do not agree about what a call may report."""
    worlds = {
        call: set(errors.split(", ")) for call, errors in re.findall(
            r'^    "(\w+)": \[(.*)\],$', (ROOT / "NetdevTesting/Simulation/SimulatedFaults.swift").read_text(), re.M)}
    if not worlds:
        yield "no calls are found in SimulatedFaults.swift"
    for call in sorted(set(worlds) - set(faults.PLAUSIBLE)):
        yield f"{call} is refused in worlds, and faults.py does not say what it may report"
    for call, errors in worlds.items():
        for error in sorted(errors - set(faults.PLAUSIBLE.get(call, " ".join(errors)).split())):
            yield f"{call} reports {error} in worlds, and not in faults.py"
    for call in sorted(set(faults.PLAUSIBLE) - set(worlds) - NOT_IN_WORLDS):
        yield f"{call} is refused by faults.py, and not in worlds"


found = list(naked())
for path, number, name in found:
    print(f"{path.relative_to(ROOT.parent)}:{number}: {name} does not go by the seam: see netdev_fault.h")
apart = list(errors_apart())
for text in apart:
    print(text)
sys.exit(1 if found or apart else 0)
