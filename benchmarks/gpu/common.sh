# Sourced by the runs beside it: where things are, and how results come back. Nothing here is of one machine but the
# defaults, and each can be set:
#   KV_BASE     folder of everything that arrives and is made (/var/kvstrata-run)
#   OUT         empty folder for results: at most 8 files, of at most 16 MiB, with plain names ($KV_BASE/out)
#   KV_PYTHON   Python 3.12 of the host (python3); KV_ENGINE_PYTHON the one with vllm and lmcache (the same)
#   KV_EXTRA_PATH  folders of packages that come before the carried ones
#   KV_SECONDS  of this run in all (540); KV_START_MINUTES most of an engine's start (5)
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
base=${KV_BASE:-/var/kvstrata-run}
out=${OUT:-$base/out}
python=${KV_PYTHON:-python3}
engine_python=${KV_ENGINE_PYTHON:-$(command -v "$python")}
seconds=${KV_SECONDS:-540}
began=$SECONDS
mkdir -p "$base/results" "$base/home" "$base/data" "$out"
# Nothing is looked for anywhere else: the host's own packages come after what was carried there.
export PYTHONPATH="${KV_EXTRA_PATH:+$KV_EXTRA_PATH:}$base/site:$here/src" PYTHONUNBUFFERED=1 HOME="$base/home" KVSTRATA_CACHE="$base/cache"
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 LMCACHE_TRACK_USAGE=false LMCACHE_DISABLE_BANNER=1
ulimit -n "$(ulimit -Hn)"

say() { echo "$(date +%H:%M:%S) +$((SECONDS - began)) s: $*"; }

left() { echo $((seconds - (SECONDS - began))); }

# What host and versions a result is of, beside every result.
describe() {
    "$engine_python" "$here/benchmarks/gpu/describe.py" >"$base/results/host.json" 2>"$base/results/host.err" ||
        say "NOT DESCRIBED: $(tail -1 "$base/results/host.err")"
}

# bring NAME: bring back what `bench` wrote as NAME.json and NAME.md, if it did.
bring() {
    local end
    for end in json md; do
        [ -s "$base/results/$1.$end" ] && cp "$base/results/$1.$end" "$out/"
    done
}

# keep NAME: bring back what a run NAME wrote: its report, record and journal, and the ends of its logs, 1 MiB of each.
keep() {
    local name=$1 log
    for file in "$name.json" "$name.journal.jsonl" host.json; do
        [ -s "$base/results/$file" ] && gzip -9 -c "$base/results/$file" >"$out/$file.gz"
    done
    [ -s "$base/results/$name.md" ] && cp "$base/results/$name.md" "$out/"
    for log in "$base/results/$name-logs"/* "$base/results/$name.log" "$base/run"/*.log; do
        [ -f "$log" ] && { echo "=== $log"; tail -c 1048576 "$log"; }
    done | gzip -9 >"$out/$name.logs.gz"
    say "kept: $(cd "$out" && ls -s | tr '\n' ' ')"
}
