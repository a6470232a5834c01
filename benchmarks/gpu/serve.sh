#!/bin/bash
# serve.sh SHAPE: `kvstrata bench serve` with the proof of concept's workload on one GPU, or on two with replicas.
#
#   8b       Llama-3.1-8B's shape with 12 GiB of KV     8b2   the same on two GPUs
#   8b2-moved  8b2, where requests go to both replicas in turn: what the other one computed comes from the tiers
#   8b-long  as many conversations as the first of them matter little, once
#   8b-clients  few of them, through LMCache's own client and as the proof of concept had it, which took 2.6 times as long
#   32b      a dense 32B with 8 GiB of KV               tiny  the rehearsal, without a GPU
#   32b-fp8  the same with KV of one byte a value, so that 8 GiB hold twice as much, and 50 at a time
#   32b-wide  a dense 32B with 24 GiB of KV and DRAM for all, once: an H200 and a host of 160 GiB
#   32b-clients  few conversations through all that was not measured with 32b
#
# A call goes on where the last one stopped (--resume): what is measured is in the journal, which comes back and can be
# put into $KV_BASE/results/serve-SHAPE.journal.jsonl on another host of the same kind. No configuration is begun that
# would not end in time. KV_ARGS has more options of `bench serve`; the same in every call, or nothing can be resumed.
# KV_GPUS are the GPUs to use (0; 8b2: 0,1). KV_MPS=1 lets vLLM and LMCache share them through CUDA MPS, not in turns, and
# KV_AS adds a word to the name of what it writes. KV_PROFILE=SECONDS lets each engine profile itself for so long under load
# (profile_engines.py): such a run is for its traces, not for its numbers.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
shape=${1:-}
name=serve-$shape${KV_AS:+-$KV_AS} phase_minutes=4
case $shape in
8b | 8b2 | 8b2-moved | 8b-long | 8b-clients)
    # 128 KiB of KV a token. The 50 conversations at a time are 19 GB, which DRAM holds; all 110 are 42 GB, which only the
    # store does.
    args=(--model llama-8b-shape --hbm-gib 12 --dram-gib 32 --store-gib 44 --min-load-gbps 4.0)
    configurations=none,dram+ssd,dram,native
    case $shape in
    8b) args+=(--set conversations=110) ;;
    8b2) args+=(--set conversations=110 --replicas 2) && configurations=none,dram+ssd ;;
    8b2-moved) args+=(--set conversations=110 --replicas 2 --router-policy round_robin) && configurations=none,dram+ssd ;;
    # As few as 40 fit in HBM, 66,238 tokens of 98,304, so that the clients are compared where they have little to give. For
    # what they load it takes 70 of them, 50 at a time (112,362); 60 would still fit (97,375).
    8b-clients) args+=(--set conversations=40 --set active=40) && configurations=none,dram+ssd,resp,poc ;;
    # What the second pass would find does not fit on the hosts that were had.
    8b-long) args+=(--set conversations=300 --passes cold) && configurations=none,dram+ssd,dram phase_minutes=6 ;;
    esac
    ;;
32b | 32b-fp8 | 32b-wide | 32b-clients)
    # 256 KiB a token. Weights take 61 GiB of an 80 GB card, graphs and activations some more: 8 GiB are left for KV.
    # More conversations than DRAM holds, so that the second pass needs the drive. Computing makes 2.5 GB/s of its KV where
    # nothing waits; 13 of the 28 are in HBM and the others wait, and what is loaded meanwhile takes no GPU time.
    args=(--model 32b-shape --store-gib 44) phase_minutes=5 gate=1.0
    case $shape in
    32b) args+=(--hbm-gib 8 --dram-gib 24 --set conversations=44 --set active=28) && configurations=none,dram+ssd,dram ;;
    # Decoding alone holds 8 GiB of KV below 1.7 times. With half as much KV a token the plan says 1.8 in the first pass and
    # 2.1 in the second; a drive that makes half as many bytes is then as fast.
    32b-fp8)
        args+=(--kv-dtype fp8 --hbm-gib 8 --dram-gib 24 --set conversations=80 --set active=50)
        configurations=none,dram+ssd phase_minutes=7 gate=0.5
        ;;
    # Or three times the room: an H200.
    32b-wide)
        args+=(--hbm-gib 24 --dram-gib 104 --set conversations=120 --set active=80 --passes cold)
        configurations=none,dram+ssd phase_minutes=10
        ;;
    # As many as hold some more than the 32,768 tokens that fit in HBM.
    32b-clients)
        args+=(--hbm-gib 8 --dram-gib 24 --set conversations=24 --set active=24 --passes cold)
        configurations=none,dram+ssd,native,resp,poc
        ;;
    esac
    args+=(--min-load-gbps "$gate")
    ;;
tiny)
    args=(--model tiny-llama --accelerator cpu --hbm-gib 0.01 --dram-gib 0.5 --store-gib 2 --cpu-threads 2
        --set conversations=6 --set active=3 --set messages=2-6 --set prefix=200-300 --set turn_in=20-40 --set turn_out=8-16
        --max-model-len 2048 --questions 2)
    configurations=none,dram+ssd,dram,resp
    ;;
*)
    echo "serve.sh: SHAPE is '$shape'; allowed: 8b, 8b2, 8b2-moved, 8b-long, 8b-clients, 32b, 32b-fp8, 32b-wide, 32b-clients, tiny" >&2
    exit 2
    ;;
esac
describe
if [ -n "${KV_MPS:-}" ]; then
    export CUDA_MPS_PIPE_DIRECTORY=$base/mps-$name CUDA_MPS_LOG_DIRECTORY=$base/results/$name-logs
    mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
    # The daemon numbers the GPUs that it sees anew; clients name them by nvidia-smi's numbers, so that it sees all. Before
    # the locks below, which one that is left over would hold.
    CUDA_DEVICE_ORDER=PCI_BUS_ID nvidia-cuda-mps-control -d || { say "NO MPS"; exit 1; }
    trap 'echo quit | nvidia-cuda-mps-control' EXIT
fi
if [ -n "${KV_PROFILE:-}" ]; then
    traces=$base/results/$name-traces
    rm -rf "$traces" && mkdir -p "$traces"
    args+=(--engine "profiler-config='{\"profiler\":\"torch\",\"torch_profiler_dir\":\"$traces\",\"torch_profiler_with_stack\":false}'")
    # Of what runs below; before the locks, which it would hold.
    "$python" "$here/benchmarks/gpu/profile_engines.py" $$ "$KV_PROFILE" "${KV_RUNNING:-$([ "$shape" = tiny ] && echo 2 || echo 5)}" \
        >"$traces/engines.txt" 2>&1 &
    profiler=$!
fi
# Runs on other GPUs go on beside it; those on the same ones take turns, and what they wait is not of their time.
gpus=${KV_GPUS:-0}
[[ $shape = 8b2* ]] && gpus=${KV_GPUS:-0,1}
# In order of their numbers, so that two runs never wait for each other.
for gpu in $(tr , '\n' <<<"$gpus" | sort -n); do
    exec {lock}>"$base/gpu$gpu.lock"
    flock "$lock"
done
began=$SECONDS
[ "$shape" = tiny ] || args+=(--gpus "$gpus")
journal=$base/results/$name.journal.jsonl
resume=()
[ -s "$journal" ] && resume=(--resume)
# The FlashInfer sampler wants a compiler and its sources at the first request.
minutes=$(awk "BEGIN { print ($(left) - 45) / 60 }")
say "$name: $minutes minutes, ${resume[*]:-from the beginning}"
# shellcheck disable=SC2086 # KV_ARGS is a list of words
timeout --signal=INT --kill-after=20 $(($(left) - 20)) "$python" "$here/scripts/bench.py" serve "${args[@]}" \
    --configurations "${KV_CONFIGURATIONS:-$configurations}" --env VLLM_USE_FLASHINFER_SAMPLER=0 --python "$engine_python" --kvrocks "$base/bin/kvrocks" --dir "$base/data" \
    --rounds "${KV_ROUNDS:-1}" --minutes "$minutes" --phase-minutes "$phase_minutes" --start-minutes "${KV_START_MINUTES:-5}" --output "$base/results/$name" \
    "${resume[@]}" ${KV_ARGS:-} 2>&1 | tee -a "$base/results/$name.log"
code=${PIPESTATUS[0]}
keep "$name"
if [ -n "${KV_PROFILE:-}" ]; then
    # No engine is left to be profiled.
    kill "$profiler" 2>/dev/null
    wait "$profiler"
    cp "$traces/engines.txt" "$out/$name.engines.txt"
    # Each by itself: what is too large does not come back, and the others do.
    find "$traces" -name 'rank*.json.gz' \( -size -16M -exec cp {} "$out/" \; -o -exec echo "TOO LARGE:" {} \; \)
fi
say "$name: exit $code"
exit "$code"
