#!/usr/bin/env bash
# Everything that needs a GPU, in one go: `bench/gpu.sh DIR [--quick]`.
#
# Builds the extension with its CUDA part in the source tree, runs the CUDA tests and the benchmarks, and leaves what
# they found in DIR. Uses the interpreter $PYTHON (default python3) with the torch that it has, and installs nothing.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '2,5p' "$0" >&2; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd)
quick=${2:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:$PWD/plugins${PYTHONPATH:+:$PYTHONPATH}
export MAX_JOBS=${MAX_JOBS:-$(tools/max_jobs.sh 2)}

"$python" tools/check_python.py --torch
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv | tee "$out/gpu.csv"
# egg_info makes the plugins known without installing: entry points are read from what lies on PYTHONPATH.
EQUIVENGINE_CUDA=${EQUIVENGINE_CUDA:-1} "$python" setup.py -q egg_info build_ext --inplace > "$out/build.log" 2>&1 ||
    { tail -n 60 "$out/build.log" >&2; exit 1; }
failed=0
"$python" -m equivengine doctor --json > "$out/doctor.json" || failed=1
"$python" tools/cuda_part.py || failed=1
"$python" -m pytest -m cuda --junitxml="$out/cuda-tests.xml" 2>&1 | tee "$out/cuda-tests.log" || failed=1
if [[ $quick == --quick ]]; then
    "$python" bench/layer_norm.py --out "$out" --rounds 3 --shapes 8x197x768 --dtypes float32 || failed=1
    "$python" bench/main_job.py --out "$out" --rounds 1 -- --device cuda --limit 1 || failed=1
else
    "$python" bench/layer_norm.py --out "$out" || failed=1
    "$python" bench/main_job.py --out "$out" -- --device cuda || failed=1
fi
exit $failed
