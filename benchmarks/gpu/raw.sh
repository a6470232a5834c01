#!/bin/bash
# raw.sh: the host's drive under kvstrata.l2 and Kvrocks: GB/s cold and warm, the decomposition of a chunk, CPU per GiB.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
describe
minutes=$(awk "BEGIN { print ($(left) - 40) / 60 }")
half=$(awk "BEGIN { print $minutes / 2 }")
bench=("$python" "$here/scripts/bench.py")
# shellcheck disable=SC2086 # KV_L2_ARGS and KV_STORE_ARGS are lists of words
timeout --signal=INT --kill-after=20 $(($(left) / 2)) "${bench[@]}" l2 --dir "$base/data" --binary "$base/bin/kvrocks" \
    --clients tier --minutes "$half" --wait-minutes 0 --output "$base/results/raw-l2" ${KV_L2_ARGS:-} 2>&1 |
    tee -a "$base/results/raw-l2.log"
first=${PIPESTATUS[0]}
if [ "$(left)" -ge 160 ]; then
    half=$(awk "BEGIN { print ($(left) - 30) / 60 }")
    # shellcheck disable=SC2086
    timeout --signal=INT --kill-after=20 $(($(left) - 15)) "${bench[@]}" store --dir "$base/data" --binary "$base/bin/kvrocks" \
        --axes "${KV_AXES:-value}" --repeats 3 --minutes "$half" --output "$base/results/raw-store" ${KV_STORE_ARGS:-} 2>&1 |
        tee -a "$base/results/raw-store.log"
    second=${PIPESTATUS[0]}
else
    say "NOT RUN: bench store, for $(left) s are left; it needs 160 s or more, so KV_SECONDS of 360"
    second=0
fi
bring raw-l2
bring raw-store
cp "$base/results/host.json" "$out/"
say "raw: l2 exit $first, store exit $second"
exit $((first > second ? first : second))
