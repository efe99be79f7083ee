#!/usr/bin/env bash
# Counts what a packet costs: instructions, retains and releases by callgrind, which repeats to a few instructions in millions
# where a stopwatch on a shared machine does not; allocations by the malloc that each executable interposes and reports.
#
#   ./count.sh [--no-build] [name pattern]
#
# Each row of the table below is one executable with arguments, to which the number of packets is added. It runs for n and
# for 10 n packets; the difference, divided by 9 n, is the cost of a packet without that of starting. A row may have bounds:
# instructions a packet, allocations a packet, retains and releases a packet, and a ratio of instructions to another row.
# A bound after `>` must be exceeded: such a row shows that the counter reports what it is there to report, allocations in
# `planted`, retains and releases in `dropped`.
# Packed rings cost less than split ones, 212 beside 217 instructions a packet: there is no available ring to write, and the first
# descriptor that is not published goes by itself, which leaves the loops for the others with values that fit into registers. A
# frame that goes alone costs more, 2270 beside 2164. What goes through two queues has fallen less than a burst has, of which it
# is a ratio.
# `send` returns without a switch of tasks, since the device of the same loop releases the frame at once: half of its cost is a burst
# of one frame through both sides of the rings. `send-apart` is what the queue's loop does when the device has a loop of its own, and
# that depends on how the threads happen to run: 3100 with 1.2 turns a send, 4500 with 1.6 where the machine has other work. A burst of
# one takes 180 of it to be taken back, 160 to be published and 80 to be rung for, a turn of the loop and of the queue 500.
# Of what a wait costs, the runtime's switch to another executor and back is some 780 instructions: swift_task_switch 100, thread-local
# look-ups 90, runJobInEstablishedExecutorContext 71, flagAsAndEnqueueOnExecutor 64, the status record of where the task is enqueued
# (allocated, added, removed, freed) 177, the executors asked for 90, swift_job_run 41, swift_task_enqueue 33, and smaller ones.
# `send-tasks` and `send-apart` pay them for each frame; a way to wait that costs less the language does not offer. The rest of
# `send-tasks` is the rings and the device (260), the packet's making and the program (170), and the send itself (270).
# `outside` is spread thin, and varies with how often the two threads meet: the mailbox under its lock (76), the copy between the rings
# (75), the packets' way out of the backlog (38), nothing else above 35. `kept` pays for its two references (40), and for each frame's own
# way home (34, 34, 30).
# The exit status is 1 when a bound is not kept.
set -euo pipefail
cd "$(dirname "$0")"

#      name            executable  arguments        instr  mallocs  arc  ratio  to row
table='
       c-split-loop-32               CountRing   c,split,any,loop,32  -  0  0  -  -
       split-loop-32                 CountRing   swift,split,any,loop,32  -  0  -  1.00  c-split-loop-32
       c-split-loop-8                CountRing   c,split,any,loop,8  -  0  0  -  -
       split-loop-8                  CountRing   swift,split,any,loop,8  -  0  -  1.05  c-split-loop-8
       c-split-loop-1                CountRing   c,split,any,loop,1  -  0  0  -  -
       split-loop-1                  CountRing   swift,split,any,loop,1  -  0  -  1.30  c-split-loop-1
       c-split-transmit-32           CountRing   c,split,any,transmit,32  -  0  0  -  -
       split-transmit-32             CountRing   swift,split,any,transmit,32  -  0  0  -  c-split-transmit-32
       c-split-in-order-loop-32      CountRing   c,split,in-order,loop,32  -  0  0  -  -
       split-in-order-loop-32        CountRing   swift,split,in-order,loop,32  -  0  -  1.00  c-split-in-order-loop-32
       c-split-in-order-loop-8       CountRing   c,split,in-order,loop,8  -  0  0  -  -
       split-in-order-loop-8         CountRing   swift,split,in-order,loop,8  -  0  -  1.05  c-split-in-order-loop-8
       c-split-in-order-loop-1       CountRing   c,split,in-order,loop,1  -  0  0  -  -
       split-in-order-loop-1         CountRing   swift,split,in-order,loop,1  -  0  -  1.30  c-split-in-order-loop-1
       c-split-in-order-transmit-32  CountRing   c,split,in-order,transmit,32  -  0  0  -  -
       split-in-order-transmit-32    CountRing   swift,split,in-order,transmit,32  -  0  0  -  c-split-in-order-transmit-32
       c-packed-loop-32              CountRing   c,packed,any,loop,32  -  0  0  -  -
       packed-loop-32                CountRing   swift,packed,any,loop,32  -  0  -  1.00  c-packed-loop-32
       c-packed-loop-8               CountRing   c,packed,any,loop,8  -  0  0  -  -
       packed-loop-8                 CountRing   swift,packed,any,loop,8  -  0  -  1.05  c-packed-loop-8
       c-packed-loop-1               CountRing   c,packed,any,loop,1  -  0  0  -  -
       packed-loop-1                 CountRing   swift,packed,any,loop,1  -  0  -  1.30  c-packed-loop-1
       c-packed-transmit-32          CountRing   c,packed,any,transmit,32  -  0  0  -  -
       packed-transmit-32            CountRing   swift,packed,any,transmit,32  -  0  0  -  c-packed-transmit-32
       c-packed-in-order-loop-32     CountRing   c,packed,in-order,loop,32  -  0  0  -  -
       packed-in-order-loop-32       CountRing   swift,packed,in-order,loop,32  -  0  -  1.00  c-packed-in-order-loop-32
       c-packed-in-order-loop-8      CountRing   c,packed,in-order,loop,8  -  0  0  -  -
       packed-in-order-loop-8        CountRing   swift,packed,in-order,loop,8  -  0  -  1.05  c-packed-in-order-loop-8
       c-packed-in-order-loop-1      CountRing   c,packed,in-order,loop,1  -  0  0  -  -
       packed-in-order-loop-1        CountRing   swift,packed,in-order,loop,1  -  0  -  1.30  c-packed-in-order-loop-1
       c-packed-in-order-transmit-32 CountRing   c,packed,in-order,transmit,32  -  0  0  -  -
       packed-in-order-transmit-32   CountRing   swift,packed,in-order,transmit,32  -  0  0  -  c-packed-in-order-transmit-32
       split-transmit               CountRing   swift,split,any,transmit,32  -  0  0  -  -
       split-transmit-in-order      CountRing   swift,split,in-order,transmit,32  -  0  0  0.95  split-transmit
       packed-transmit              CountRing   swift,packed,any,transmit,32  -  0  0  -  -
       packed-transmit-in-order     CountRing   swift,packed,in-order,transmit,32  -  0  0  0.95  packed-transmit
       burst           CountQueue  burst,64         230    0        0    -      -
       burst-swap      CountQueue  burst-swap,64    290    0        0    -      -
       burst-packed    CountQueue  burst,64,packed=1  -    0        0    1.00   burst
       burst-in-order  CountQueue  burst,64,in_order=1  -  0        0    1.00   burst
       burst-packed-in-order CountQueue burst,64,packed=1&in_order=1 - 0 0 0.97 burst
       burst-32        CountQueue  burst,32         280    0        0    -      -
       await           CountQueue  await,64         290    0        0    1.30   burst
       await-swap      CountQueue  await-swap,64    350    0        0    -      -
       await-packed    CountQueue  await,64,packed=1  -    0        0    1.00   await
       await-32        CountQueue  await,32         340    0        0    1.25   burst-32
       burst-try       CountQueue  burst-try,64     250    0        0    1.01   burst
       await-try       CountQueue  await-try,64     310    0        0    1.01   await
       pipeline        CountQueue  pipeline,64      -      0        0.1  1.40   burst
       pipeline-swap   CountQueue  pipeline-swap,64 -      0        0.1  1.40   burst-swap
       through         CountQueue  through,64       445    0        0.2  -      -
       through-256     CountQueue  through,256      -      0        0.1  1.45   burst
       send-burst-32   CountQueue  send-burst,32    345    0        -    -      burst-32
       send-array-32   CountQueue  send-array,32    540    0.1      2    -      -
       outside         CountQueue  outside,64       800    0.2      3    -      -
       kept            CountQueue  kept,64          560    0.2      3    -      -
       dropped         CountQueue  dropped,64       930    1        >4   -      -
       made            CountQueue  made,64          400    0        0.5  -      -
       send            CountQueue  send,64          2050   0        0.5  -      -
       send-tasks      CountQueue  tasks,64         1550   0        0.5  -      -
       send-apart      CountQueue  send,64,placement=own  5500  0.1  8  -     -
       planted         CountQueue  planted,64       -      >0.9     -    -      -
       headers-udp     CountFrames encode           250    0        0    -      -
       headers-udp6    CountFrames encode6          250    0        0    -      -
       make-packet     CountFrames packet           560    1        4    -      -
       make-udp        CountFrames udp              820    1        4    -      -
       make-udp6       CountFrames udp6             820    1        4    -      -
       make-around     CountFrames around           840    1        4    -      -
'
# What a packet costs of the system, for some of these rows: calls of the system by the threads that are counted, and doorbells that the
# driver rings, be they calls of a function or of the system: those that the device has not said it can do without, as a device of the
# same loop does that polls. A send to a device elsewhere is a doorbell, and as the threads happen to run it finds the release at once, or
# sleeps (`epoll_wait`) and reads the eventfd that woke it. The last row is the echo of a datagram over a TAP, which needs root: a sleep,
# the frame, the answer, and the read that finds nothing more, which the kernel does not tell of in advance.
#      name            calls  doorbells
system='
       burst           0.01   0.01
       await           0.01   0.01
       send            0.02   0.01
       send-tasks      0.01   0.02
       send-apart      4      1.05
       tap-echo        4.5    -
'
packets=${PACKETS:-20000}

build=1
pattern=.
for argument in "$@"; do
  case $argument in
    --no-build) build=0 ;;
    *) pattern=$argument ;;
  esac
done

command -v valgrind >/dev/null || { echo "count.sh: valgrind is not installed" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

executables=$(awk -v pattern="$pattern" 'NF && $1 ~ pattern { print $2 }' <<<"$table" | sort -u)
if grep -qE "$pattern" <<<tap-echo; then
  if [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ]; then
    executables="$executables TimeEcho"
  else
    echo "count.sh: tap-echo is left out: it needs root and /dev/net/tun"
  fi
fi
for executable in $executables; do
  if [ "$build" = 1 ]; then swift build -c release --product "$executable" >"$work/build.log" 2>&1 || {
    cat "$work/build.log" >&2
    exit 2
  }; fi
done
products=$(swift build -c release --show-bin-path 2>/dev/null)
for executable in $executables; do
  # Without debug information: valgrind 3.19 does not read all of what Swift writes.
  strip --strip-debug -o "$work/$executable" "$products/$executable"
done

# The runtime's functions that change a reference count, in callgrind's list of calls.
arc='swift_retain|swift_release|swift_retain_n|swift_release_n|swift_bridgeObjectRetain|swift_bridgeObjectRelease'
arc="$arc|swift_unknownObjectRetain|swift_unknownObjectRelease|swift_nonatomic_retain|swift_nonatomic_release"

# count EXECUTABLE ARGUMENTS PACKETS: prints "instructions mallocs arc calls doorbells" of one run. The executable says "allocations N",
# of its loop, what the runtime allocates included, and may say "doorbells N".
count() {
  local output="$work/callgrind.$1.${2//,/-}.$3" mallocs doorbells apart=
  # A device on a loop of its own, or a client: only the queue's loop counts.
  case $1,$2 in *placement=own* | TimeEcho*) apart=--separate-threads=yes ;; esac
  # The arguments are a list with commas.
  # shellcheck disable=SC2086
  valgrind --tool=callgrind --callgrind-out-file="$output" --compress-strings=no --compress-pos=no --collect-systime=yes $apart \
    "$work/$1" ${2//,/ } "$3" >"$work/output" 2>"$work/valgrind.log" || {
    cat "$work/output" "$work/valgrind.log" >&2
    exit 2
  }
  if [ -n "$apart" ]; then
    output=$(grep -l '^fn=.*QueueTurn.*takeReleased' "$output"-*) || {
      echo "count.sh: no thread of $1 has a queue" >&2
      exit 2
    }
  fi
  mallocs=$(awk '$1 == "allocations" { print $2; found = 1 } END { exit !found }' "$work/output") || {
    [ "$1" = TimeEcho ] || {
      echo "count.sh: $1 reports no allocations" >&2
      exit 2
    }
    mallocs=0
  }
  doorbells=$(awk '$1 == "doorbells" { print $2 }' "$work/output")
  awk -v arc="^($arc)\$" -v mallocs="$mallocs" -v doorbells="${doorbells:-0}" '
    # cfn= names the function called by the calls= line that follows it, from the function of the last fn=. The linkage
    # stub of a function has the name of the function: what it calls has been counted when it was called.
    function plain(name) {
      sub(/@.*/, "", name); sub(/^_?swift_retain_$/, "swift_retain", name); gsub(/\047.*/, "", name)
      return name
    }
    /^fn=/ { caller = plain(substr($0, 4)); next }
    /^cfn=/ { name = plain(substr($0, 5)); next }
    /^calls=/ { if (name == caller) next; split($1, call, "=")
                if (name ~ arc) a += call[2]
                # Under valgrind the clock is a call of the system, which it is not without.
                if (name == "clock_gettime") clock += call[2]
                next }
    /^(summary|totals):/ { totals[FILENAME] = $2; calls[FILENAME] = $3 }
    END { for (file in totals) { total += totals[file]; called += calls[file] }
          printf "%d %d %d %d %d\n", total, mallocs, a, called - clock, doorbells }' $output
}

printf '%-30s %12s %9s %9s %8s   %s\n' row instr/packet mallocs arc ratio verdict
declare -A instructions calls doorbells
failed=0
# A bound of 0 allows what starting up, and a turn of the loop now and then, spread over a long run.
allowance=0.01
while read -r name executable arguments instr mallocs arc_bound ratio_bound other; do
  [ -n "$name" ] || continue
  grep -qE "$pattern" <<<"$name" || continue
  # On a machine with other work the loop's own timers run more often while the same packets pass, each with a turn that costs some
  # references: who is measured again costs no more than he does.
  for try in 1 2 3; do
    first=$(count "$executable" "$arguments" "$packets")
    second=$(count "$executable" "$arguments" $((packets * 10)))
    row=$(awk -v first="$first" -v second="$second" -v n="$packets" 'BEGIN {
      split(first, a); split(second, b)
      for (i = 1; i <= 5; i++) printf "%.3f ", (b[i] - a[i]) / (9 * n) }')
    read -r i m a c d <<<"$row"
    [ "$arc_bound" = 0 ] && awk -v a="$a" -v allowance="$allowance" 'BEGIN { exit !(a > allowance && a < 5 * allowance) }' || break
  done
  instructions[$name]=$i
  calls[$name]=$c
  doorbells[$name]=$d
  ratio=-
  [ "$other" = - ] || [ -z "${instructions[$other]:-}" ] ||
    ratio=$(awk -v i="$i" -v o="${instructions[$other]}" 'BEGIN { printf "%.3f", i / o }')
  verdict=$(awk -v i="$i" -v m="$m" -v a="$a" -v r="$ratio" -v ib="$instr" -v mb="$mallocs" -v ab="$arc_bound" \
    -v rb="$ratio_bound" -v allowance="$allowance" 'BEGIN {
      v = judge("instructions", i, ib, 0) judge("mallocs", m, mb, allowance) judge("arc", a, ab, allowance)
      if (r != "-") v = v judge("ratio", r, rb, 0)
      print v == "" ? "ok" : "NOT KEPT:" v }
    function judge(what, value, bound, more) {
      if (bound == "-") return ""
      if (sub(/^>/, "", bound)) return value > bound + 0 ? "" : " " what "<=" bound
      return value <= bound + more ? "" : " " what ">" bound }')
  [ "$verdict" = ok ] || failed=1
  printf '%-30s %12.1f %9.3f %9.3f %8s   %s\n' "$name" "$i" "$m" "$a" "$ratio" "$verdict"
done <<<"$table"

if grep -q TimeEcho <<<"$executables"; then
  echo=--only,send,--rounds,1,--packets,32,--round-trips
  done=0
  # On a machine with much other work an answer may not come within the client's second.
  for try in 1 2 3; do
    first=$(count TimeEcho "$echo" $((packets / 10))) && second=$(count TimeEcho "$echo" $((packets / 2))) && done=1 && break
  done
  [ "$done" = 1 ] || exit 2
  # A round of a tenth goes before the one that is asked for.
  calls[tap-echo]=$(awk -v first="$first" -v second="$second" -v n="$packets" 'BEGIN {
    split(first, a); split(second, b); printf "%.3f", (b[4] - a[4]) / (0.4 * 1.1 * n) }')
  doorbells[tap-echo]=-
fi
printf '\n%-30s %12s %12s   %s\n' row calls/packet doorbells verdict
while read -r name call_bound bell_bound; do
  [ -n "$name" ] && [ -n "${calls[$name]:-}" ] || continue
  verdict=$(awk -v c="${calls[$name]}" -v d="${doorbells[$name]}" -v cb="$call_bound" -v db="$bell_bound" 'BEGIN {
    v = (c > cb + 0 ? " calls>" cb : "") (db != "-" && d > db + 0 ? " doorbells>" db : "")
    print v == "" ? "ok" : "NOT KEPT:" v }')
  [ "$verdict" = ok ] || failed=1
  printf '%-30s %12s %12s   %s\n' "$name" "${calls[$name]}" "${doorbells[$name]}" "$verdict"
done <<<"$system"
exit "$failed"
