#!/usr/bin/env bash
# Runs the CUDA kernels under compute-sanitizer: memcheck (addresses), racecheck (shared memory), initcheck (reads of
# memory that nobody wrote) and synccheck (barriers). Any report is a failure. Needs a GPU, compute-sanitizer on PATH or
# in the CUDA toolkit, and a build with the CUDA operators; takes minutes, since every access is watched.
#
#     csrc/tools/cuda_sanitizer.sh [memcheck racecheck initcheck synccheck]
set -euo pipefail
cd "$(dirname "$0")/../.."

refuse() {
  echo "cuda_sanitizer.sh: $1" >&2
  exit 1
}

PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
command -v compute-sanitizer >/dev/null || refuse "compute-sanitizer is neither in PATH nor in the CUDA toolkit"
ready=$(python - <<'PYTHON'
import torch
from pymixunlearn import ops

if not torch.cuda.is_available():
    print("torch finds no CUDA GPU")
elif not ops.status().cuda.available:
    print(f"the CUDA operators are not in use: {ops.status().cuda.reason}")
PYTHON
)
[ -z "$ready" ] || refuse "$ready"

# Each tensor in an allocation of its own, or an access past its end would land in torch's pool unnoticed.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1 OMP_NUM_THREADS=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ $# -gt 0 ] || set -- memcheck racecheck initcheck synccheck
for tool in "$@"; do
  echo "=== $tool"
  options=()
  # PyTorch and the runtime ask a driver for functions that it may not have; the bindings check their own launches.
  [ "$tool" != memcheck ] || options=(--report-api-errors no)
  compute-sanitizer --tool "$tool" "${options[@]}" --target-processes all --error-exitcode 99 \
    python -m pytest -q -m cuda tests/ops/test_cuda_kernels.py 2>&1 | tee "$log" || refuse "$tool failed"
  # The exit code does not count warnings, and a run in which no test ran has nothing to report.
  ! grep -Eq "SUMMARY: [1-9]" "$log" || refuse "$tool reported something"
  grep -q "SUMMARY: 0 " "$log" || refuse "$tool printed no summary"
  grep -Eq "^[0-9]+ passed(, [0-9]+ deselected)?(, [0-9]+ warnings?)? in" "$log" || refuse "not every test ran under $tool"
done
echo "no reports"
