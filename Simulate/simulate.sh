#!/usr/bin/env bash
# simulate.sh SEEDS [FIRST]: so many seeds, from the first on, in all worlds, by two processes. Status 1 when one found something.
# simulate.sh planted: each fault of our own must be found within a thousand seeds, in which nothing is found without it, some
# calls are refused, and each gives the same trace twice.
# SIMULATE names another simulator than the one that was built here.
set -uo pipefail
cd "$(dirname "$0")"
if [[ ! ${1:-} =~ ^(planted|[0-9]+)$ ]]; then
  echo "usage: simulate.sh SEEDS [FIRST] | planted"
  exit 64
fi
simulate=${SIMULATE:-.build/release/Simulate}

if [ "$1" = planted ]; then
  if ! clean=$(timeout 120 "$simulate" 1000 --twice); then
    echo "without any fault planted, it fails:"
    head -n 200 <<<"$clean"
    exit 1
  fi
  echo "without any fault planted: ${clean##*$'\n'}"
  status=0
  if [[ $clean == *" 0 calls refused"* ]]; then
    echo "no call was refused"
    status=1
  fi
  for fault in lost-transmit-recheck lost-receive-recheck forgotten-doorbell double-completion missing-rearm \
    ignored-loss start-crosses-reset \
    bound-not-renewed starving-unregistered freed-elsewhere leaked-waiter overtaken-frame unheard-loss deaf-listener \
    endless-pause foreign-header no-turns early-send early-return unheard-link kept-room untold-loss lost-buffer \
    device-lost-recheck blind-sleep carried-twice second-queue-reversed lost-merged lost-first early-batch \
    forgotten-tap-buffers forgotten-tun-buffers forgotten-udp-buffers unwoken-return returned-behind endless-deferring \
    deaf-consumer unwished-room promised-twice held-under-lock untold-end other-chance; do
    # That a seed gives two traces is seen by running it twice.
    twice=()
    [ $fault = other-chance ] && twice=(--twice)
    output=$(NETDEV_PLANT=$fault timeout 120 "$simulate" 1000 "${twice[@]}")
    end=$?
    finding=$(grep -m 1 '^FOUND ' <<<"$output")
    # 1: the run has found it; 70: the run trapped on it, and said so.
    if [ -n "$finding" ] && { [ $end = 1 ] || [ $end = 70 ]; }; then
      echo "$fault: $finding"
    else
      echo "$fault: not found, status $end"
      status=1
    fi
  done
  exit $status
fi

output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
pids=()
for part in 0 1; do
  # A run has a limit of its own, and says so; this one is for what is not even a run.
  timeout -k 10 $((300 + $1)) "$simulate" "$1" --first "${2:-0}" --part $part/2 >"$output/$part" &
  pids+=($!)
done
status=0
for part in 0 1; do
  wait "${pids[$part]}" || status=1
  [ -s "$output/$part" ] || echo "FOUND part $part of 2 ended without a word"
  # A finding, the command that replays it, and the end of its trace.
  cat "$output/$part"
done
[ $status = 0 ] && echo "$1 seeds from ${2:-0} on: nothing was found"
exit $status
