#!/usr/bin/env bash
# All that only a GPU can tell, in one go of about 25 minutes: tests first, then the parts of studies that are for a GPU.
# What fails does not keep the rest from running. DATA holds what tasks would download.
#
# usage: studies/gpu.sh [DATA]
cd "$(dirname "$0")/.." || exit
[ $# -gt 0 ] && export AUTORANGER_DATA=$(realpath "$1")

run() { echo "== $*"; timeout "$limit" "$@" || echo "== failed with $?: $*"; }

limit=300 run python -m pytest -q tests/test_kernel_gpu.py tests/test_population_gpu.py tests/test_step.py
limit=420 run python studies/04_step_time/run.py --device cuda --tune
limit=540 run python studies/10_population_throughput/run.py --device cuda --minutes 8
for seed in 0 1 2; do
    limit=180 run python studies/12_cifar_alone/run.py 3e-3 --seed $seed --device cuda
    limit=180 run python studies/12_cifar_alone/run.py 3e-3 --components linear_warmup explore_exploit \
        --weight-decay 5e-2 --seed $seed --device cuda
done
