#!/bin/bash
# sequence.sh SECONDS RUN [SECONDS RUN ...]: runs one after the other, in a session of their own, and return at once.
#
#   sequence.sh 800 'serve.sh 8b' 700 'serve.sh 32b' 300 'units.sh rendered/gpu1'
#
# For hosts on which a call ends after minutes, and what it left running goes on: follow.sh says how far they are.
# Results wait in $KV_BASE/kept.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -ge 2 ] && [ $(($# % 2)) = 0 ] || { echo "sequence.sh: $# arguments; allowed: SECONDS RUN, once or more" >&2; exit 2; }
for ((n = 1; n <= $#; n += 2)); do
    [[ ${!n} =~ ^[0-9]+$ ]] || { echo "sequence.sh: SECONDS is '${!n}'; allowed: a whole number" >&2; exit 2; }
    next=$((n + 1))
    [ -f "$here/benchmarks/gpu/${!next%% *}" ] || { echo "sequence.sh: RUN is '${!next}'; allowed: a script beside this" >&2; exit 2; }
done
if [ -s "$base/sequence.pid" ] && kill -0 "$(cat "$base/sequence.pid")" 2>/dev/null; then
    echo "sequence.sh: process $(cat "$base/sequence.pid") runs still; allowed: one sequence at a time" >&2
    exit 2
fi
mkdir -p "$base/kept"
rm -f "$base/sequence.pid"
touch "$base/sequence.log"
# shellcheck disable=SC2016 # expanded by the inner shell
KV_BASE=$base KV_SCRIPTS=$here/benchmarks/gpu setsid bash -c '
    echo $$ >"$KV_BASE/sequence.pid"
    while [ $# -gt 0 ]; do
        echo "$(date +%H:%M:%S) begins: $2, $1 s"
        # shellcheck disable=SC2086
        OUT="$KV_BASE/kept" KV_SECONDS=$1 bash "$KV_SCRIPTS"/$2
        echo "$(date +%H:%M:%S) ended with $?: $2"
        shift 2
    done
    echo "$(date +%H:%M:%S) all ended"' sequence "$@" </dev/null >>"$base/sequence.log" 2>&1 &
disown
# Whoever follows must find it, or would take it for ended.
until [ -s "$base/sequence.pid" ] || [ $((SECONDS - began)) -gt 30 ]; do sleep 0.1; done
say "begun; $base/sequence.log"
