#!/bin/bash
# warm.sh [SECONDS]: read the host's own packages into the page cache, in a session of its own, and return at once.
#
# Where a host's disk is fetched as it is read, an engine's first start waits for it: meanwhile the bundle can arrive.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
site=$(PYTHONPATH='' "$engine_python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || exit 1
# What the bundle carries itself, or nothing here loads, is left out.
setsid timeout "${1:-300}" bash -c 'find "$1" -type f \( -path "*/torch/*" -o -path "*/jax*" -o -path "*/cupy*" \) -prune -o -type f -size +0 -print0 |
    sort -z | xargs -0 -r -P 8 -n 64 cat >/dev/null; echo "$(date +%H:%M:%S) read: $1"' warm "$site" </dev/null >"$base/warm.log" 2>&1 &
disown
say "reading $site"
