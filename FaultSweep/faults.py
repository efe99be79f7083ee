#!/usr/bin/env python3
"""The fault sweep: every system call of every scenario, refused with every plausible error, in a process each.

faults.py PROGRAM [--kinds K,…] [--slice K/N] [--seed N] [--minutes M] [--jobs J] [--calls WORD,…] [--life]
                  [--planted]

Each scenario runs once and records its calls. Then it runs again for each call site of each phase, with its first, its second
and its last call refused, and with all of them refused, for each error number that the call may report. What a run ends with
is printed as a table. With --life each call is refused wherever it is made, as a filter of system calls does. Ends with 1 when a
run crashes, hangs, spins, leaves something behind or goes deaf; the command that shows it again is printed.
"""

import argparse
import collections
import concurrent.futures
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# What each call may report, as its manual page says. 0 stands for half the length.
PLAUSIBLE = {
    "eventfd": "EMFILE ENFILE ENOMEM",
    "write": "EINTR",
    "read": "EINTR EAGAIN",
    "preadv2": "EINTR EAGAIN EOPNOTSUPP EPERM ENOSYS",
    "pthread_create": "EAGAIN EPERM",
    "memfd_create": "EMFILE ENFILE ENOMEM",
    "ftruncate": "ENOSPC EINTR",
    "fallocate": "ENOSPC EINTR",
    "fcntl": "EPERM EINVAL",
    "mmap": "ENOMEM EAGAIN EPERM",
    "madvise": "ENOMEM EINVAL EAGAIN EPERM",
    "munmap": "ENOMEM",
    "close": "EINTR EIO",
    "socket": "EMFILE ENFILE ENOMEM EACCES",
    "setsockopt": "ENOMEM EPERM",
    "getsockopt": "ENOPROTOOPT EMFILE ESRCH EPERM",
    "bind": "EADDRINUSE EACCES EADDRNOTAVAIL",
    "getsockname": "ENOBUFS",
    "recv": "EINTR EAGAIN ENOBUFS ENOMEM EPERM",
    "send": "EAGAIN ENOBUFS ENOMEM EPERM",
    "recvmmsg": "EINTR EAGAIN ENOMEM ECONNREFUSED ENOSYS EPERM",
    "sendmmsg": "EINTR EAGAIN ENOBUFS ENOMEM EPERM ECONNREFUSED EMSGSIZE ENETUNREACH ENETDOWN ENOSYS",
    "connect": "EAGAIN ECONNREFUSED ENOENT EACCES EPERM",
    "listen": "EADDRINUSE",
    "sendto": "EINTR EAGAIN ENOBUFS ENOMEM ENETDOWN ENXIO EPERM",
    "accept4": "EMFILE ENFILE ENOMEM ENOBUFS EAGAIN ECONNABORTED EINTR EPERM",
    "socketpair": "EMFILE ENFILE ENOMEM",
    "recvmsg": "EINTR EAGAIN ENOMEM ECONNRESET",
    "sendmsg": "EINTR EAGAIN ENOMEM ENOBUFS EPIPE ECONNRESET ETOOMANYREFS",
    "lstat": "EACCES ENOENT",
    "statx": "EACCES ENOENT",
    "unlink": "EACCES EROFS",
    "renameat2": "EACCES EEXIST EINVAL ENOSYS",
    "flock": "EWOULDBLOCK EINTR ENOLCK",
    "poll": "EINTR ENOMEM",
    "syscall": "EMFILE ESRCH ENOSYS EPERM",
    "open": "EMFILE ENFILE ENOENT EACCES ENOMEM",
    "ioctl": "EPERM EBUSY EINVAL ENODEV ENOMEM",
    "readv": "EINTR EAGAIN EIO EBADFD ENOMEM",
    "writev": "EINTR EAGAIN ENOBUFS ENOMEM EIO EINVAL EBADFD",
    "epoll_create1": "EMFILE ENFILE ENOMEM",
    "epoll_ctl": "ENOSPC ENOMEM",
    "epoll_ctl_add": "ENOSPC ENOMEM",
    "epoll_ctl_mod": "ENOMEM",
    "epoll_ctl_del": "ENOENT",
    "epoll_wait": "EINTR",
    "timerfd_create": "EMFILE ENFILE ENOMEM",
    "timerfd_settime": "EINVAL",
    "sigaction": "EINVAL",
}
DEFAULT = "EPERM ENOMEM EIO"
# Nobody is told these for ever: the descriptor would not be ready, and no program interrupts every call.
PASSING = {"EINTR", "EAGAIN"}
# Nor these, of one call: an overrun of a netlink socket is told once.
TOLD_ONCE = {("recv", "ENOBUFS")}
# What a filter of system calls answers.
FILTERED = "EPERM ENOSYS"
# What no program does without: nobody can be woken, and nothing heard.
NEEDED = {"write", "epoll_wait"}
# A packet filter's word on one datagram, which is dropped and counted: whether on all of them nobody knows.
OF_ONE_FRAME = {("sendmmsg", "EPERM")}
PHASES = ["open", "traffic", "loss", "return", "close"]
TIME_OUT = 60

Case = collections.namedtuple("Case", "kind phase site first count error")


def environment(**more):
    own = dict(os.environ)
    own.update(
        GLIBC_TUNABLES="glibc.malloc.tcache_count=0", MALLOC_PERTURB_="85", SWIFT_BACKTRACE="enable=no", **more)
    return own


def run(program, kind, **more):
    """Runs a scenario; returns calls refused, how it ended, and what is wrong with that."""
    process = subprocess.Popen(
        [program, kind], env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True)
    try:
        text, _ = process.communicate(timeout=TIME_OUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return 1, "hang", [f"it hangs: not at its end after {TIME_OUT} s"]
    fired, outcome, wrong = 0, None, []
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "fired":
            fired = int(rest)
        elif word == "outcome":
            outcome = rest
        elif word == "violation":
            wrong.append(rest)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return 1, name, [f"it ends by {name}: {text[-400:]}"]
    if outcome is None:
        return 1, "exit", [f"it ends with {process.returncode}, in the middle: {text[-400:]}"]
    return fired, outcome, wrong


def plan(case):
    return f"{case.phase}/{case.site}/{case.first}/{case.count}/{case.error}"


def record(program, kind):
    """The calls of a scenario: by phase and site, how many, and whether they can be cut short."""
    with tempfile.NamedTemporaryFile() as file:
        _, outcome, wrong = run(program, kind, NETDEV_FAULT_RECORD=file.name)
        if wrong:
            print(f"{kind}: without any fault: {outcome}: {'; '.join(wrong)}")
            sys.exit(1)
        counts = collections.Counter()
        for line in file.read().decode().splitlines():
            phase, site, count, _, *cut = line.split()
            if phase in PHASES:
                counts[phase, site, bool(cut)] += int(count)
        return counts


def cases(kind, counts):
    for (phase, site, is_cut), count in sorted(counts.items()):
        call = site.split(":")[1].split("@")[0]
        errors = ["0"] if is_cut else PLAUSIBLE.get(call, DEFAULT).split()
        for name in errors:
            number = 0 if is_cut else getattr(errno, name)
            for first in sorted({1, 2, count}):
                if first <= count:
                    yield Case(kind, phase, site, first, 1, number)
            if name not in PASSING and (call, name) not in TOLD_ONCE and count > 1:
                yield Case(kind, phase, site, 1, "*", number)


def lives(kind, counts):
    """Each call refused in every phase and everywhere."""
    calls = {site.split(":")[1].split("@")[0] for _, site, is_cut in counts if not is_cut}
    for call in sorted(calls - NEEDED):
        for name in FILTERED.split():
            if (call, name) in OF_ONE_FRAME:
                continue
            yield Case(kind, "*", f"*:{call}@*", 1, "*", getattr(errno, name))


def name_error(number):
    return errno.errorcode.get(number, str(number)) if number else "short"


def locate(program, site):
    """Where in the source a call comes from."""
    symbolizer = shutil.which("llvm-symbolizer") or shutil.which("addr2line")
    if not symbolizer or site.startswith("libevent") or site.endswith("@*"):
        return ""
    address = f"0x{int(site.split('@')[1], 16) - 1:x}"
    command = [symbolizer, "-e", program, address] if "addr2line" in symbolizer else [
        symbolizer, f"--obj={program}", "-f", "-p", address]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip().splitlines()[0] if result.stdout.strip() else ""


def sweep(program, todo, jobs, minutes, environment_of_case):
    """Runs the cases. Returns what was found, and the table."""
    table, found, unreached = collections.defaultdict(collections.Counter), [], 0
    begin, done = time.monotonic(), 0

    def one(case):
        if minutes and time.monotonic() - begin > minutes * 60:
            return None
        return run(program, case.kind, NETDEV_FAULT=plan(case), **environment_of_case)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for case, result in zip(todo, pool.map(one, todo)):
            if result is None:
                continue
            done += 1
            fired, outcome, wrong = result
            call = case.site.split(":")[1].split("@")[0]
            key = (call, name_error(case.error), "always" if case.count == "*" else "once")
            if wrong:
                found.append((case, wrong))
                table[key]["FOUND"] += 1
            elif fired == 0:
                unreached += 1
            else:
                table[key][outcome] += 1
            if done % 200 == 0:
                print(f"… {done} of {len(todo)}, {len(found)} found, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"\n{'call':<18}{'error':<14}{'refused':<9}outcomes")
    for (call, error, often), outcomes in sorted(table.items()):
        print(f"{call:<18}{error:<14}{often:<9}" + ", ".join(f"{n} × {o}" for o, n in outcomes.most_common()))
    print(
        f"\n{done} of {len(todo)} runs in {time.monotonic() - begin:.0f} s; {unreached} did not come to the call again")
    return found


def confirm(program, found, environment_of_case):
    """What shows itself again, with nothing else running. What ends a process counts at once."""
    sure = []
    for case, wrong in found:
        again = [run(program, case.kind, NETDEV_FAULT=plan(case), **environment_of_case) for _ in range(2)]
        seen = sum(1 for _, _, more in again if more)
        if seen or wrong[0].startswith("it ends"):
            sure.append(case)
        often = "confirmed" if seen else "not seen again"
        print(f"\nFOUND ({often}): {case.kind}, {case.phase}: {case.site} call {case.first} × {case.count}: "
              f"{name_error(case.error)}  {locate(program, case.site)}")
        for line in wrong:
            print(f"  {line[:1200]}")
        print(f"  again:  NETDEV_FAULT='{plan(case)}' {program} {case.kind}")
    return sure


# A fault of our own, in a branch that only a refused call reaches; and a call whose refusal reaches it.
PLANTED = {
    "leak": ("loopback", "open", "ftruncate", "ENOSPC"),
    "ignored": ("host-udp", "open", "bind", "EADDRINUSE"),
    "double-free": ("loopback", "open", "pthread_create", "EAGAIN"),
}


def planted(program):
    missed = 0
    for name, (kind, phase, call, error) in PLANTED.items():
        todo = [
            case for case in cases(kind, record(program, kind))
            if case.phase == phase and case.site.split(":")[1].startswith(call + "@") and name_error(case.error) == error
        ]
        clean = [wrong for case in todo for wrong in run(program, kind, NETDEV_FAULT=plan(case))[2]]
        wrong = [
            wrong for case in todo for wrong in run(program, kind, NETDEV_FAULT=plan(case), NETDEV_PLANT=name)[2]]
        is_found = bool(wrong) and not clean
        missed += not is_found
        print(f"{'found' if is_found else 'MISSED'}: {name}, by {call} refused with {error} in {kind}: "
              f"{(wrong or ['nothing'])[0][:160]}" + (f"; without it, too: {clean[0][:160]}" if clean else ""))
    return missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--kinds")
    parser.add_argument("--calls")
    parser.add_argument("--slice", default="1/1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--life", action="store_true")
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    if options.planted:
        sys.exit(1 if planted(program) else 0)

    offered = subprocess.run([program, "kinds"], capture_output=True, text=True, check=True).stdout.split()
    kinds = options.kinds.split(",") if options.kinds else offered
    if "tap" not in offered:
        print("TAP and packet sockets are left out: making a network takes root")
    todo = []
    for kind in kinds:
        counts = record(program, kind)
        mine = list((lives if options.life else cases)(kind, counts))
        print(f"{kind}: {len(counts)} call sites by phase, {sum(counts.values())} calls, {len(mine)} runs", flush=True)
        todo += mine
    if options.calls:
        wanted = options.calls.split(",")
        todo = [case for case in todo if any(word in case.site for word in wanted)]
    # A slice is a part of all scenarios, and another one each time; each kind has its turn, however few its runs are.
    random.Random(options.seed).shuffle(todo)
    turn = collections.Counter()
    order = []
    for case in todo:
        order.append(turn[case.kind])
        turn[case.kind] += 1
    todo = [case for _, case in sorted(zip(order, todo), key=lambda pair: pair[0])]
    part, parts = (int(word) for word in options.slice.split("/"))
    todo = todo[part - 1::parts]
    found = sweep(program, todo, options.jobs, options.minutes, {})
    sure = confirm(program, found, {})
    print(f"\n{len(sure)} found" if sure else "\nnothing found")
    sys.exit(1 if sure else 0)


if __name__ == "__main__":
    main()
