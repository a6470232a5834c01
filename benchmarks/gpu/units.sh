#!/bin/bash
# units.sh RENDERED: what the roles would put on this host, put there, and started by the unit runner as its units say.
#
# RENDERED is the folder of a host that playbooks/render.yml wrote; with a cluster.json of playbooks/describe.yml in it, the
# verifier's layers KV_LAYERS (store,cache,engine, and router where one is rendered and not KV_NO_ROUTER set) are run
# too. Exit 0: it served, every check passed or says why it was left out, and the killed engine came back. This writes
# below /etc, /opt/kvstrata and /var/lib/kvstrata, and makes two users: it is for a host that is thrown away. Root only.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rendered=${1:?units.sh: no RENDERED} name=units
[ "$(id -u)" = 0 ] || { echo "units.sh: user $(id -un); allowed: root" >&2; exit 2; }
[ -e /run/systemd/system ] && { echo "units.sh: this host has systemd; allowed: one without" >&2; exit 2; }
describe
# What is there afterwards is of this run.
rm -f "$base/results/$name.json" "$base/results"/verify.*
runner=("$python" -m kvstrata.unit_runner)
state=(--state "$base/run")
# What asks systemctl, asks the runner.
export KVSTRATA_UNITS_STATE=$base/run
mkdir -p "$base/words"
printf '#!/bin/sh\nPYTHONPATH=%s KVSTRATA_UNITS_STATE=%s exec %s -m kvstrata.unit_runner.systemctl "$@"\n' \
    "$PYTHONPATH" "$base/run" "$(command -v "$python")" >"$base/words/systemctl"
chmod 0755 "$base/words/systemctl"
units=(kvrocks@d0.service lmcache.service vllm@0.service)
[ -f "$rendered/etc/systemd/system/vllm-router.service" ] && [ -z "${KV_NO_ROUTER:-}" ] && units+=(vllm-router.service)

for user in kvrocks kvstrata; do
    id -u $user >/dev/null 2>&1 || useradd --system --shell /usr/sbin/nologin --home-dir /nonexistent --no-create-home $user
done
cp -a "$rendered/etc/." /etc/
chown -R root:root /etc/kvstrata /etc/systemd/system
chgrp kvrocks /etc/kvstrata/kvrocks/*.conf
mkdir -p /opt/kvstrata/bin /var/lib/kvstrata/drives/d0
install -m 0755 "$base/bin/kvrocks" /opt/kvstrata/bin/kvrocks
"$engine_python" "$here/benchmarks/gpu/release.py" /opt/kvstrata/current >"$base/results/release.txt" ||
    { say "NO RELEASE"; exit 1; }
without=()
below=$({ readlink -f /opt/kvstrata/current/bin/python; cat "$base/results/release.txt"; } | grep -m 1 -E '^/(root|home|run/user)/')
[ -n "$below" ] && without=(--without ProtectHome) && say "NOT APPLIED: ProtectHome=, for $below is below it"
# A shape needs no weights, and is made here where it did not arrive.
model=$(sed -n 's/^model: //p' "$rendered/etc/kvstrata/vllm/0.yaml")
[ -e "$model/config.json" ] || "$python" -c "import sys; from pathlib import Path; from kvstrata.bench.serving import served
served.prepare(Path(sys.argv[1]).name, Path(sys.argv[1]).parent, dtype=None, load_format=None, most_tokens=8192)" "$model"
say "in place"

"${runner[@]}" check "${units[@]}" | tee "$base/results/units-check.txt"
began_start=$SECONDS
"${runner[@]}" start "${units[@]}" "${state[@]}" "${without[@]}" 2>&1 | tee "$base/results/$name.log"
least() { echo $(($1 > $2 ? $1 : $2)); }
# step STEP: see units_check.py; what is left after it is for the units' ends, and for what comes back.
step() {
    "$engine_python" "$here/benchmarks/gpu/units_check.py" "$1" --state "$base/run" --rendered "$rendered" \
        --seconds "$(least 5 $(($(left) - 40)))" --router "$router" --output "$base/results/$name.json"
}
router=no layers=store,cache,engine
[[ " ${units[*]} " == *router* ]] && router=yes layers+=,router
step serve
code=$?
say "served after $((SECONDS - began_start)) s: exit $code"
if [ -s "$rendered/cluster.json" ]; then
    # It is the site of one host: the verifier runs there as well. Before the engine is killed, whose start takes longest.
    PATH=$base/words:$PATH timeout "$(least 5 $(($(left) - 40)))" "$python" "$here/benchmarks/gpu/verify_here.py" \
        "$rendered/cluster.json" "$base/results/verify.json" "${KV_LAYERS:-$layers}" 2>&1 | tee "$base/results/verify.txt"
    verified=${PIPESTATUS[0]}
    say "verified: exit $verified"
    cp "$base/results"/verify.* "$out/"
    [ "$code" = 0 ] && code=$verified
fi
# Also where the verifier found a fault; but an engine that did not serve has nothing to come back to.
step restart
restarted=$?
say "restarted: exit $restarted"
[ "$code" = 0 ] && code=$restarted
"${runner[@]}" status "${state[@]}" --json >"$base/results/units-status.json"
reversed=()
for unit in "${units[@]}"; do reversed=("$unit" "${reversed[@]}"); done
"${runner[@]}" stop "${reversed[@]}" "${state[@]}"
cp "$base/results/units-check.txt" "$base/results/units-status.json" "$out/"
keep "$name"
exit $code
