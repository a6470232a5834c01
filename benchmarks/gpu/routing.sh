#!/bin/bash
# routing.sh: the contract of routing on this host's cores, with mocked engines: what routers add with two CPUs of their
# own, and the loads of many workers at full speed. It needs no GPU, and nothing else may run beside it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
describe
workers=${KV_WORKERS:-32} rounds=${KV_ROUNDS:-3}
code=0
# run NAME SHARE OPTION...: at most SHARE percent of what is left; exit 1 says that a point is not met, which is a result.
run() {
    local name=$1 limit=$((($(left) - 15) * $2 / 100)) ended
    shift 2
    timeout --signal=TERM --kill-after=20 "$limit" "$python" "$here/scripts/bench.py" routing --python "$engine_python" \
        --output "$base/results/$name" "$@" 2>&1 | tee -a "$base/results/$name.log"
    ended=${PIPESTATUS[0]}
    say "$name: exit $ended"
    [ "$ended" -gt "$code" ] && code=$ended
    bring "$name"
}
# shellcheck disable=SC2086 # KV_ROUTING_ARGS is a list of words
run routing-overhead 45 --workers 1 --points overhead --arms cache_aware,dynamo-kv --rounds "$rounds" \
    --router-cores "${KV_ROUTER_CORES:-0,1}" ${KV_ROUTING_ARGS:-}
# shellcheck disable=SC2086
run "routing-$workers" 100 --workers "$workers" --points loads --arms "${KV_ARMS:-cache_aware,dynamo-kv,random}" --rounds 1 \
    ${KV_ROUTING_ARGS:-}
cp "$base/results/host.json" "$out/"
exit "$code"
