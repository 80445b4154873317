#!/usr/bin/env bash
# Figure 10's and table 11's shape: runs of table 5 go on by GRPO, then the grid's with each reward left out in turn (docs/tables.md).
# Needs finished runs of table5.sh in TABLES. Called again, a run that is done is left alone.
#
#     TABLES=runs/tables-short STEPS=100 bash training/runs/figure10.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python}
TABLES=${TABLES:-runs/tables-short}
OUT=${OUT:-$TABLES/grpo}  # not TABLES itself: its table reads every result right below it
STEPS=${STEPS:-100}
RATE=${RATE:-5e-5}
PROMPTS=${PROMPTS:-8}
TEMPERATURE=${TEMPERATURE:-0.6} # near the greedy answers; at 1 the grid's draws earn 0.46 in place of 0.57
SEED=${SEED:-0}
FORMS=${FORMS:-text grid}
WITHOUT=${WITHOUT-lane_f1 polyline_f1 format}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

go_on() { # form, name, more...
    local form=$1 name=$2
    shift 2
    "$PYTHON" -m training.representations grpo "$TABLES/lanes-$form-image-$SEED" --frames "$TABLES/frames" --out "$OUT/$name" \
        --steps "$STEPS" --learning-rate "$RATE" --prompts "$PROMPTS" --temperature "$TEMPERATURE" "$@"
}

curves=()
for form in $FORMS; do
    go_on "$form" "$form"
    curves+=("$form=$OUT/$form")
done
for reward in $WITHOUT; do
    go_on grid "grid-without-$reward" --without "$reward"
done
"$PYTHON" -m training.curves "${curves[@]}" --window 20 --out "$OUT/curves.png" \
    --plot reward/overall,reward/lane_f1,reward/polyline_f1,reward/format,kl,entropy
