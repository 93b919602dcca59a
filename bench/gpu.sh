#!/usr/bin/env bash
# Everything that needs a GPU, in one go: `bench/gpu.sh DIR [--dry]`.
#
# Builds the extension with its CUDA part in the source tree, runs the CUDA tests and the benchmarks, and leaves their
# JSON files and one log in DIR. A step that fails or runs too long is recorded, and the next one starts; none starts after
# $LIMIT seconds (default 570). Uses the interpreter $PYTHON (default python3) with the torch that it has, and installs
# nothing. --dry tries all commands out on a CPU, on a tiny model, without building.
set -uo pipefail
[[ $# -ge 1 ]] || { sed -n '2,7p' "$0" >&2; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd)
dry=${2:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:$PWD/plugins${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export MAX_JOBS=${MAX_JOBS:-$(tools/max_jobs.sh 2)} EQUIVENGINE_CUDA=${EQUIVENGINE_CUDA:-1}
log=$out/log.txt summary='' failed=0
: > "$log"

# step NAME SECONDS COMMAND...
step() {
    local name=$1 limit=$2 rc start=$SECONDS left=$((${LIMIT:-570} - SECONDS))
    shift 2
    ((limit < left)) || limit=$left
    echo "== $name: $*" | tee -a "$log"
    if ((limit < 5)); then
        rc='no time left'
    else
        timeout --kill-after=5 "$limit" "$@" 2>&1 | tee -a "$log"
        rc=${PIPESTATUS[0]}
    fi
    [[ $rc == 0 ]] || failed=1
    [[ $rc != 124 && $rc != 137 ]] || rc="$rc (stopped after $limit s)"
    summary+=$(printf '%-16s %4d s  %s' "$name" $((SECONDS - start)) "$rc")$'\n'
}

operators() { # NAME SECONDS OPTIONS...
    step "$1" "$2" "$python" bench/operators.py --out "$out" --label "$1" "${@:3}"
}

if [[ $dry == --dry ]]; then
    step 'cuda tests' 60 "$python" -m pytest -q -m cuda tests/ops
    operators tiny 120 --model tiny --K 2 --rounds 1
    step 'full jacobian' 60 "$python" bench/full_jacobian.py --out "$out" --model tiny --rows 4
    step svd 60 "$python" bench/svd.py --out "$out" --model tiny --only 'ours, exact' 'ours, randomized'
    step matching 60 "$python" bench/matching.py --out "$out" --only lm --pairs 2
    step orthonormalise 60 "$python" bench/orthonormalise.py --out "$out" --k 8 --rounds 1 --m 4096
    step kernels 60 "$python" bench/kernels.py --out "$out" --model vit_s16 --K 2 --rounds 1 --precision fp32 bf16
else
    step gpu 30 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
    step python 60 "$python" tools/check_python.py --torch
    # egg_info makes the plugins known without installing: entry points are read from what lies on PYTHONPATH.
    step build 300 "$python" setup.py -q egg_info build_ext --inplace
    step 'cuda part' 30 "$python" tools/cuda_part.py
    step 'cuda tests' 120 "$python" -m pytest -q -m cuda
    operators vit_b16 90 --model vit_b16 --K 16 64 256
    operators clip_h14_k256 120 --model clip_h14 --K 256 --rounds 2 --only ours vmap_jvp vmap_vjp
    step 'full jacobian' 90 "$python" bench/full_jacobian.py --out "$out" --model clip_h14 \
        --precision fp32 tf32x3 tf32 --rounds 2
    operators clip_h14 120 --model clip_h14 --K 16 64
    operators vit_s16 60 --model vit_s16 --K 16 64 256
    step svd 90 "$python" bench/svd.py --out "$out" --model vit_b16 clip_h14 --only 'ours, whole spectrum' \
        'ours, exact' 'ours, randomized' 'ours, randomized, mixed' 'ours, auto' 'jacrev + linalg.svd' 'jacrev + svd_lowrank'
    step matching 60 "$python" bench/matching.py --out "$out" --only lm 'lm, no box'
    step orthonormalise 45 "$python" bench/orthonormalise.py --out "$out"
    step kernels 90 "$python" bench/kernels.py --out "$out" --K 64 --rounds 5 --budget 0.005
    step 'main job' 60 "$python" bench/main_job.py --out "$out" --rounds 1 -- --device cuda
    for folder in ops linearize jacobian; do
        step "tests/$folder" 90 "$python" -m pytest -q -m 'not cuda and not slow' "tests/$folder"
    done
fi
printf '\n%s' "$summary" | tee -a "$log"
exit $failed
