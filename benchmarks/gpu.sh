#!/usr/bin/env bash
# Everything that a GPU has to show, in at most nine minutes on one machine: a build for that GPU alone, the tests that
# need one, the sanitizers on the short list of kernels, and the benches of the operators and of a training step beside
# their rivals. Leaves one folder of tables and logs.
#
#     benchmarks/gpu.sh [FOLDER]                   FOLDER: results-gpu by default
#
# Needs nvcc of torch's major version and what `pip install -e ".[test]"` needs, already installed. Every part has a
# limit, and one that fails or runs out of time does not keep the next ones from running: summary.txt says how each
# went, and the exit code is 1 unless all passed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-results-gpu}" && cd "${1:-results-gpu}" && pwd) || exit 1
python - <<'PYTHON' || exit 1
import sys
import torch

if not torch.cuda.is_available():
    sys.exit("gpu.sh: torch finds no CUDA GPU")
PYTHON
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
: >"$out/summary.txt"
failed=0

# part NAME SECONDS COMMAND...: runs a part with a limit, its output to NAME.log.
part() {
  local name=$1 limit=$2 begin=$SECONDS code=0
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  local said=passed
  [ $code -eq 0 ] || { said="failed with exit code $code" && failed=1; }
  [ $code -ne 124 ] || said="ran out of its $limit s"
  printf '%-12s %4d s  %s\n' "$name" $((SECONDS - begin)) "$said" | tee -a "$out/summary.txt"
}

part build 120 env PYMIXUNLEARN_CUDA=1 python -m pip install --no-build-isolation --no-deps -e .
part info 20 mixunlearn-cli info
part tests 150 python -m pytest -q -m cuda tests/ops tests/training
part memcheck 45 csrc/tools/cuda_sanitizer.sh memcheck
part racecheck 45 csrc/tools/cuda_sanitizer.sh racecheck
part ops 75 mixunlearn-cli bench ops --device cuda --no-compile --seconds 0.3 --out "$out/ops.csv"
part ops-compile 45 mixunlearn-cli bench ops --device cuda --quick --case '*-medium-*' --out "$out/ops-compile.csv"
part step 40 mixunlearn-cli bench step --device cuda --case resnet18-32 --case cnn-28 --seconds 10 --out "$out/step.csv"
cat "$out/summary.txt"
exit $failed
