#!/usr/bin/env bash
# GRPO on the nano model, both stages, paid for lanes (docs/grpo.md says what came of it). Stop it whenever you like: called again, each
# run goes on from its last checkpoint, and a run that is done is left alone. About 9 CPU seconds a step and process.
#
#     OUT=runs/grpo bash training/runs/grpo_nano.sh      from the eleventh weights; the twelfth came of it
#     START=runs/mine/final CALIBRATION=getok_drive/bundles/nano/contract.json ...      from others (sft_nano.sh)
#     PROCESSES=1 PLACE_STEPS=0 MOVE_STEPS=25 ...      the second stage alone, on one core
#     ABLATE="placement.lane_f1 movement.lane_gain" ABLATE_STEPS=40 ...      stages without a reward, from START
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python}
source training/runs/eleventh.sh
OUT=${OUT:-runs/grpo}
PROCESSES=${PROCESSES:-2}
PLACE_STEPS=${PLACE_STEPS:-200}
MOVE_STEPS=${MOVE_STEPS:-150}
ABLATE=${ABLATE:-}
ABLATE_STEPS=${ABLATE_STEPS:-40}
DATASET=${DATASET:-world:val}
LIMIT=${LIMIT:-500}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# One picture is 128 visual tokens, so a row that holds the prompt (and the proposal) once is cheaper than one an answer; the tower is
# frozen, so that a picture is encoded once a step and costs nothing in the update. Draws are near the greedy answer: a policy whose
# draws often miss learns what is best to write for one that misses.
COMMON=(--preset nano credit=element share_prefix=True train_vision=False sampling.last_kind=lane warmup_steps=3
    prompts=8 prompts_per_pass=4 minibatches=1 threads=1 save_every=10 eval_every=0 pictures_every=0)
PLACE=("learning_rate=${PLACE_RATE:-4e-5}" sampling.temperature=0.6 sampling.refine_proposals=True "rewards.lane_thresholds=(0.5,)")
MOVE=("learning_rate=${MOVE_RATE:-3e-5}" sampling.temperature=0.4)
CALIBRATION=${CALIBRATION:-$START/contract.json} # of confidences; a bundle that starts from a folder of training.sft has none of its own

grpo() { # stage, start, out, steps, settings...; the rate falls over the last third
    local stage=$1 start=$2 out=$3 steps=$4
    shift 4
    [ -e "$out/final/training.json" ] || "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$PROCESSES" \
        -m training.grpo --start-from "$start" --stage "$stage" --out "$out" "${COMMON[@]}" "steps=$steps" "decay_steps=$((steps / 3))" "$@"
}

evaluate() { # what is evaluated (a bundle, or a training folder to make one of), where the bundle is made, where to
    local calibration=()
    [ ! -e "$CALIBRATION" ] || calibration=(--calibration "$CALIBRATION")
    if [ -e "$1/contract.json" ]; then
        set -- "$1" "$1" "$3"
    elif [ ! -e "$2" ]; then
        "$PYTHON" -m training.export "$1" --out "$2" --name nano --rounds 3,box=2 --least-confidence box=0.3,sign=0.25 "${calibration[@]}"
    fi
    "$PYTHON" -m training.evaluate --dataset "$DATASET" --limit "$LIMIT" --bundle "$2" --out "$3"
}

from=$START curves=()
if [ "$PLACE_STEPS" -gt 0 ]; then
    grpo placement "$START" "$OUT/place" "$PLACE_STEPS" "${PLACE[@]}"
    from=$OUT/place/final curves+=("stage 1=$OUT/place")
fi
grpo movement "$from" "$OUT/move" "$MOVE_STEPS" "${MOVE[@]}"
"$PYTHON" -m training.curves "${curves[@]}" "stage 2=$OUT/move" --window 20 --out "$OUT/curves.png" \
    --plot reward/lane_f1,reward/lane_closeness,reward/point_refinement,reward/lane_gain,kl,entropy
evaluate "$START" "$OUT/bundle-start" "$OUT/eval-start"
evaluate "$OUT/move/final" "$OUT/bundle" "$OUT/eval-grpo"
"$PYTHON" -m training.compare "start=$OUT/eval-start" "grpo=$OUT/eval-grpo" --out "$OUT/compare.html"

compared=("start=$OUT/eval-start")
for ablated in $ABLATE; do # STAGE.REWARD, or STAGE.nothing to compare with
    stage=${ablated%%.*} name=${ablated#*.} out=$OUT/without-$ablated
    if [ "$stage" = placement ]; then settings=("${PLACE[@]}"); else settings=("${MOVE[@]}"); fi
    [ "$name" = nothing ] || settings+=("rewards.driving_$ablated=0")
    grpo "$stage" "$START" "$out" "$ABLATE_STEPS" "${settings[@]}"
    evaluate "$out/final" "$out/bundle" "$out/eval"
    compared+=("$ablated=$out/eval")
done
[ -z "$ABLATE" ] || "$PYTHON" -m training.compare "${compared[@]}" --out "$OUT/ablations.html"
