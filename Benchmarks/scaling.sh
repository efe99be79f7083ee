#!/usr/bin/env bash
# Two queue pairs on two CPUs beside one: how many times as many frames they carry, and which words both of their threads write.
#
#   ./scaling.sh [rounds]      0 rounds: the words alone
#
# The ratio is a stopwatch's, of interleaved rounds; nothing fails because of it. The words are counted: valgrind tells each store and
# which thread it belongs to, for n and for 3 n frames a queue; what more the long run has stored in words that both queues' threads
# write, divided by 4 n, is what a frame costs of them: where loops never sleep, and where they sleep behind each burst. The exit
# status is 1 when either is not 0.
set -euo pipefail
cd "$(dirname "$0")"

command -v valgrind >/dev/null || { echo "scaling.sh: valgrind is not installed" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
swift build -c release --product TimeScaling >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 2; }
program=$(swift build -c release --show-bin-path 2>/dev/null)/TimeScaling
[ "${1:-}" = 0 ] || "$program" ${1:+"$1"}
strip --strip-debug -o "$work/TimeScaling" "$program"

# stores PACKETS [pausing]: prints of all stores of the two busiest threads how many there were, and how many of them hit words, and cache
# lines, that both write: of each as often as the one does that writes it less, for every thread has written anywhere once. A stored
# range is counted by its first word.
stores() {
  { valgrind --tool=lackey --trace-mem=yes --trace-sched=yes "$work/TimeScaling" carry 2 "$@" 2>&1 >"$work/output" ||
    { cat "$work/output" >&2; exit 2; }; } | awk '
    /SCHED\[[0-9]+\]: *acquired/ { split($0, part, /[][]/); thread = part[2] + 0; next }
    /^ [SM] / {
      if (thread == 1) next
      address = substr($2, 1, index($2, ",") - 1)
      line = substr(address, 1, length(address) - 2)
      word = substr(address, 1, length(address) - 1) (index("01234567", substr(address, length(address))) ? "0" : "8")
      low = index("0123", substr(address, length(address) - 1, 1)) ? 0 : index("4567", substr(address, length(address) - 1, 1)) ? 1 : \
        index("89ab", substr(address, length(address) - 1, 1)) ? 2 : 3
      all[thread]++
      words[thread, word]++
      lines[thread, line "." low]++
    }
    END {
      for (t in all) if (first == "" || all[t] > all[first]) { second = first; first = t }
        else if (second == "" || all[t] > all[second]) second = t
      for (key in words) { split(key, part, SUBSEP)
        if (part[1] == first && (second, part[2]) in words) w += 2 * min(words[key], words[second, part[2]]) }
      for (key in lines) { split(key, part, SUBSEP)
        if (part[1] == first && (second, part[2]) in lines) l += 2 * min(lines[key], lines[second, part[2]]) }
      printf "%d %d %d\n", all[first] + all[second], w, l
    }
    function min(one, other) { return one < other ? one : other }'
}
# Enough of them that the two loops store more than any thread that only starts something.
packets=${PACKETS:-20000}
# compare NAME [pausing]: a line, and whether the words are nobody's but their own queue's.
compare() {
  local name=$1 before after
  shift
  before=$(stores "$packets" "$@")
  after=$(stores $((packets * 3)) "$@")
  awk -v name="$name" -v before="$before" -v after="$after" -v n="$packets" 'BEGIN {
    split(before, a); split(after, b)
    for (i = 1; i <= 3; i++) each[i] = (b[i] - a[i]) / (4 * n)
    printf "%s: stores a frame %.1f, of these in words that both queues write %.3f, in cache lines of which both write words %.3f\n",
      name, each[1], each[2], each[3]
    exit !(each[1] > 10 && each[2] < 0.01)
  }'
}
failed=0
compare "without a pause" || failed=1
compare "a pause behind each burst" pausing || failed=1
exit "$failed"
