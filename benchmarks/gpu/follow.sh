#!/bin/bash
# follow.sh SECONDS: wait until the sequence has ended, or so long; print what it said meanwhile, and bring back what is there.
#
# Exit 0: it has ended; 3: it runs still, call again. Journals come back too: what was measured is never lost.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
limit=${1:?follow.sh: no SECONDS}
told=$(cat "$base/sequence.told" 2>/dev/null || echo 0)
running() { [ -s "$base/sequence.pid" ] && kill -0 "$(cat "$base/sequence.pid")" 2>/dev/null; }
while running && [ $((SECONDS - began)) -lt "$limit" ]; do sleep 1; done
size=$(stat -c %s "$base/sequence.log")
tail -c +$((told + 1)) "$base/sequence.log" | cut -c1-400 | tail -150
echo "$size" >"$base/sequence.told"
[ -d "$base/kept" ] && find "$base/kept" -maxdepth 1 -type f -size -16M -exec cp {} "$out/" \;
for journal in "$base"/results/*.journal.jsonl; do
    [ -s "$journal" ] && gzip -9 -c "$journal" >"$out/$(basename "$journal").gz"
done
# Eight files come back: of more, the oldest reports stay, for their numbers are in the records.
while [ "$(find "$out" -type f | wc -l)" -gt 8 ]; do
    victim=$(find "$out" -type f \( -name '*.logs.gz' -o -name '*.md' -o -name '*.txt' \) -printf '%T@ %p\n' | sort -n | head -1 | cut -d' ' -f2-)
    [ -n "$victim" ] || break
    say "stays there: $(basename "$victim")"
    rm "$victim"
done
if running; then
    say "runs still"
    exit 3
fi
say "all ended"
