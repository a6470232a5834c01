#!/bin/bash
# sequence.sh SECONDS RUN [SECONDS RUN ...]: runs one after the other, in a session of their own, and return at once.
#
#   sequence.sh 800 'serve.sh 8b' 700 'serve.sh 32b' 300 'units.sh rendered/gpu1'
#
# For hosts on which a call ends after minutes, and what it left running goes on: follow.sh says how far they are.
# Results wait in $KV_BASE/kept. With KV_LANE a sequence goes on beside others of other names: each with its own KV_GPUS.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
lane=sequence${KV_LANE:+-$KV_LANE}
[ $# -ge 2 ] && [ $(($# % 2)) = 0 ] || { echo "sequence.sh: $# arguments; allowed: SECONDS RUN, once or more" >&2; exit 2; }
for ((n = 1; n <= $#; n += 2)); do
    [[ ${!n} =~ ^[0-9]+$ ]] || { echo "sequence.sh: SECONDS is '${!n}'; allowed: a whole number" >&2; exit 2; }
    next=$((n + 1))
    [ -f "$here/benchmarks/gpu/${!next%% *}" ] || { echo "sequence.sh: RUN is '${!next}'; allowed: a script beside this" >&2; exit 2; }
done
if [ -s "$base/$lane.pid" ] && kill -0 "$(cat "$base/$lane.pid")" 2>/dev/null; then
    echo "sequence.sh: process $(cat "$base/$lane.pid") runs still; allowed: one sequence at a time, or another KV_LANE" >&2
    exit 2
fi
mkdir -p "$base/kept"
rm -f "$base/$lane.pid"
touch "$base/$lane.log"
# shellcheck disable=SC2016 # expanded by the inner shell
KV_BASE=$base KV_LANE_FILE=$lane KV_SCRIPTS=$here/benchmarks/gpu setsid bash -c '
    echo $$ >"$KV_BASE/$KV_LANE_FILE.pid"
    while [ $# -gt 0 ]; do
        echo "$(date +%H:%M:%S) begins: $2, $1 s"
        # shellcheck disable=SC2086
        OUT="$KV_BASE/kept" KV_SECONDS=$1 bash "$KV_SCRIPTS"/$2
        echo "$(date +%H:%M:%S) ended with $?: $2"
        shift 2
    done
    echo "$(date +%H:%M:%S) all ended"' sequence "$@" </dev/null >>"$base/$lane.log" 2>&1 &
disown
# Whoever follows must find it, or would take it for ended.
until [ -s "$base/$lane.pid" ] || [ $((SECONDS - began)) -gt 30 ]; do sleep 0.1; done
say "begun; $base/$lane.log"
