#!/bin/bash
# tree.sh DIR: make DIR/site and DIR/lib, what a GPU host with Python packages of its own lacks, for `kvstrata bundle make --tree`.
#
# site: the packages of locks/node-cuda-cp312.txt, each by its sha256, without those of $left_out; lib: the libraries that
# Kvrocks is linked with and the host may lack, as this machine has them. Needs uv, the package index, and 4 GB.
# KV_KEEP names packages that stay all the same: routing.sh wants "ai-dynamo ai-dynamo-runtime".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=${1:?tree.sh: no DIR}
mkdir -p "$dir"
# What an older lock had would be carried along.
[ -z "$(ls -A "$dir")" ] || { echo "tree.sh: DIR is $dir, which is not empty; allowed: a new folder" >&2; exit 2; }
dir=$(cd "$dir" && pwd)
# The host has them, or a dense Llama never loads them. torchvision goes with torch: the host's would not load with ours.
left_out="ai-dynamo ai-dynamo-runtime anthropic cuda-bindings cuda-core cuda-pathfinder cuda-python cuda-tile cuda-toolkit
cufile-python cupy-cuda13x fastsafetensors flashinfer-python google-cloud-bigtable google-cloud-core google-cloud-monitoring
grpc-google-iam-v1 grpcio grpcio-observability grpcio-status hf-xet iniconfig instanttensor llvmlite mpmath nccl-extensions
nccl4py networkx ninja numba nvtx opencv-python-headless pillow pynvvideocodec pytest regex sentencepiece setuptools-scm sympy
tilelang tokenizers tokenspeed-mla tokenspeed-triton transformers uv vcs-versioning z3-solver"
# Of NVIDIA's, NCCL alone: the host's is older than torch wants.
kept_nvidia="nvidia-ml-py nvidia-nccl-cu13"
mkdir -p "$dir/site" "$dir/lib"
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
awk -F== -v out="$left_out" -v kept="$kept_nvidia" -v more="${KV_KEEP:-}" '
    BEGIN {
        split(out, names, " "); for (i in names) leave[names[i]]
        split(kept, names, " "); for (i in names) keep[names[i]]
        split(more, names, " "); for (i in names) { keep[names[i]]; delete leave[names[i]] }
    }
    /^#/ || NF < 2 || $1 in leave || ($1 ~ /^nvidia-/ && !($1 in keep)) { next }
    { print }' "$here/locks/node-cuda-cp312.txt" >"$wanted"
uv pip install --target "$dir/site" --python 3.12 --no-deps --require-hashes --link-mode copy -r "$wanted"
cd "$dir/site"
# Hopper runs FlashAttention 3; the others are another GPU's, a second server, or for linking.
rm -rf bin vllm/vllm_flash_attn/_vllm_fa2_C* vllm/vllm-rs triton/backends/nvidia/bin/ptxas-blackwell mistral_common/data/*.json
find . -name '*.a' -size +1M -delete
find . -name '*.pyi' -delete
find . -type d -name __pycache__ -prune -exec rm -rf {} +
# The verifier reads nvidia-smi with a module that it finds below these.
mkdir -p ansible/module_utils && touch ansible/__init__.py ansible/module_utils/__init__.py
for library in libssl.so.3 libcrypto.so.3; do
    cp -L "$(ldconfig -p | awk -v name="$library" '$1 == name { print $NF; exit }')" "$dir/lib/"
done
du -sm "$dir/site" "$dir/lib"
