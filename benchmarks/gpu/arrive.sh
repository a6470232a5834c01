#!/bin/bash
# arrive.sh BUNDLE [SHA256]: check the bundle, unpack it below $KV_BASE, and make the host's own libraries reachable.
#
# The tree has the packages that the host lacks, NCCL among them; torch finds its libraries by its RPATH, ../../nvidia of
# its own folder, or else preloads what comes first on sys.path: the host's older NCCL. So each folder of the host's
# nvidia packages is linked beside the carried ones. Ends with an import of torch, and says which libraries it took.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
bundle=${1:?arrive.sh: no BUNDLE} expect=${2:-}
set -e
unpacked=$base/bundle
"$python" -S "$bundle/kvstrata_bundle.py" unpack "$bundle" "$unpacked" ${expect:+--expect "$expect"}
say "unpacked"
mkdir -p "$base/bin" "$base/cache/models"
for tree in "$unpacked"/trees/*; do
    [ -d "$tree" ] || continue
    # Emptied first: a run that was cut off here left a part of it.
    rm -rf "${base:?}/${tree##*/}"
    "$python" -S "$bundle/kvstrata_bundle.py" tree "$tree" "$base/${tree##*/}"
    rm -rf "$tree"
done
for model in "$unpacked"/models/*; do
    [ -d "$model" ] && ln -sfn "$model" "$base/cache/models/${model##*/}"
done
kvrocks=$(find "$unpacked/cache" -path '*bin/kvrocks*' -type f | head -1)
if [ -n "$kvrocks" ]; then
    install -m 0755 "$kvrocks" "$base/bin/kvrocks"
    if missing=$(ldd "$base/bin/kvrocks" | grep 'not found'); then
        say "Kvrocks' libraries are not on this host, those of the tree lib are taken:" $missing
        mv "$base/bin/kvrocks" "$base/bin/kvrocks.program"
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$base/lib" "$base/bin/kvrocks.program" >"$base/bin/kvrocks"
        chmod 0755 "$base/bin/kvrocks"
    fi
    say "Kvrocks: $("$base/bin/kvrocks" --version 2>&1 | head -1)"
else
    say "NO KVROCKS in the bundle: what needs an SSD tier will be NOT RUN"
fi
say "trees and models in place"
nvidia=$(PYTHONPATH='' "$engine_python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
for folder in ${nvidia:+"$nvidia"/*}; do
    [ -e "$base/site/nvidia/${folder##*/}" ] || { mkdir -p "$base/site/nvidia" && ln -s "$folder" "$base/site/nvidia/"; }
done
set +e
describe
"$engine_python" "$here/benchmarks/gpu/torch_check.py" | tee "$base/results/torch.json"
code=${PIPESTATUS[0]}
cp "$base/results/torch.json" "$base/results/host.json" "$out/"
say "arrived: exit $code"
exit "$code"
