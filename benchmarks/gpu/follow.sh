#!/bin/bash
# follow.sh SECONDS: wait until the sequences have ended, or so long; print what they said meanwhile, and bring back what is there.
#
# Exit 0: all have ended; 3: one runs still, call again. Journals come back too: what was measured is never lost.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
limit=${1:?follow.sh: no SECONDS}
running() {
    local file
    for file in "$base"/sequence*.pid; do
        [ -s "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null && return 0
    done
    return 1
}
while running && [ $((SECONDS - began)) -lt "$limit" ]; do sleep 1; done
# Asked before anything is copied: what ends meanwhile is brought back by the next call.
running && ended=no || ended=yes
for log in "$base"/sequence*.log; do
    told=$(cat "${log%.log}.told" 2>/dev/null || echo 0)
    size=$(stat -c %s "$log")
    echo "--- $(basename "$log" .log)"
    tail -c +$((told + 1)) "$log" | cut -c1-400 | tail -100
    echo "$size" >"${log%.log}.told"
done
[ -d "$base/kept" ] && find "$base/kept" -maxdepth 1 -type f -size -16M -exec cp {} "$out/" \;
for journal in "$base"/results/*.journal.jsonl; do
    name=$(basename "$journal" .journal.jsonl)
    # The record of a complete run holds all that its journal does; from another's journal it can go on.
    record=$base/results/$name.json
    if [ -f "$record" ] && ! [ "$journal" -nt "$record" ] && grep -q '^ "complete": true' "$record"; then
        rm -f "$out/$name.journal.jsonl.gz"
    elif [ -s "$journal" ]; then
        gzip -9 -c "$journal" >"$out/$name.journal.jsonl.gz"
    fi
done
# Eight files come back: of more, the oldest reports stay, for their numbers are in the records.
while [ "$(find "$out" -type f | wc -l)" -gt 8 ]; do
    victim=$(find "$out" -type f \( -name '*.logs.gz' -o -name '*.md' -o -name '*.txt' \) -printf '%T@ %p\n' | sort -n | head -1 | cut -d' ' -f2-)
    [ -n "$victim" ] || break
    say "stays there: $(basename "$victim")"
    rm "$victim"
done
if [ "$ended" = no ]; then
    say "runs still"
    exit 3
fi
say "all ended"
