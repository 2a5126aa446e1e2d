#!/usr/bin/env bash
# All that only a GPU can tell, in 8 minutes: what is worth most comes first, and each part has a time limit. What a part
# has printed and recorded is in RESULTS when it ends; a second call goes on with the parts that are not done.
#
# usage: studies/gpu.sh RESULTS [DATA]   (DATA holds what tasks would download; PYTHON is the interpreter)
set -u
results=$(realpath -m "${1:?usage: studies/gpu.sh RESULTS [DATA]}")
[ $# -gt 1 ] && export AUTORANGER_DATA=$(realpath "$2")
cd "$(dirname "$0")/.." || exit
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$results"

# part NAME SECONDS RECORD COMMAND…: RECORD is a file that the command writes, or "-".
part() {
    local name=$1 limit=$2 record=$3; shift 3
    [ -e "$results/$name.done" ] && return
    echo "== $name"
    timeout "$limit" "$@" 2>&1 | tee "$results/$name.log"
    local status=${PIPESTATUS[0]}
    [ -e "$record" ] && cp "$record" "$results/$name.${record##*.}"
    [ "$status" -eq 0 ] && touch "$results/$name.done" || echo "== $name ended with $status"
}

python=${PYTHON:-python}
autoranger=("$python" -c "from autoranger.cli import main; main()")
part step 70 studies/04_step_time/record_gpu.json \
    "$python" studies/04_step_time/run.py --device cuda --models gpt resnet50
part search 200 "$results/tuned.toml" \
    "${autoranger[@]}" search --task cifar --device cuda --budget 3m --out "$results/tuned.toml" \
    --storage "$results/search.journal" --study gpu
part tests 75 - \
    "$python" -m pytest -q -p no:cacheprovider tests/test_kernel_gpu.py tests/test_population_gpu.py
part population 75 studies/10_population_throughput/record_gpu.json \
    "$python" studies/10_population_throughput/run.py --device cuda --tasks cifar --minutes 1
part alone 40 studies/12_cifar_alone/record.jsonl \
    "$python" studies/12_cifar_alone/run.py 3e-3 --components linear_warmup explore_exploit --weight-decay 5e-2 --device cuda
rm -f "$results"/*.journal.lock
