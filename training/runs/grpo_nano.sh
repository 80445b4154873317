# GRPO on the nano model, both stages, paid for lanes (docs/grpo.md says what came of it). Stop it whenever you like: called again, each
# run goes on from its last checkpoint, and a run that is done is left alone.
#
#     START=getok_drive/bundles/nano OUT=runs/grpo bash training/runs/grpo_nano.sh
#     PLACE_STEPS=0 MOVE_STEPS=25 ...      the short form that was run: the second stage alone
#     ABLATE="lane_f1 lane_gain point_refinement point_closeness" ABLATE_STEPS=25 ...      each reward of stage 2 removed in turn
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python}
START=${START:-getok_drive/bundles/nano}
OUT=${OUT:-runs/grpo}
PLACE_STEPS=${PLACE_STEPS:-300}
MOVE_STEPS=${MOVE_STEPS:-200}
ABLATE=${ABLATE:-}
ABLATE_STEPS=${ABLATE_STEPS:-50}
DATASET=${DATASET:-world:val}
LIMIT=${LIMIT:-120}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# One picture is 128 visual tokens, so a row that holds the prompt (and the proposal) once is cheaper than one an answer; the tower is
# frozen, so that a picture is encoded once a step and costs nothing in the update.
COMMON=(--preset nano credit=element share_prefix=True train_vision=False
    prompts=8 prompts_per_pass=4 minibatches=1 threads=1 save_every=5 eval_every=15 eval_images=64 pictures_every=0)
PLACE=("learning_rate=${PLACE_RATE:-5e-5}" warmup_steps=5 sampling.temperature=0.8 sampling.last_kind=drivable)
MOVE=("learning_rate=${MOVE_RATE:-1e-4}" warmup_steps=3 sampling.temperature=1.0 sampling.last_kind=lane)

grpo() { # stage, start, out, settings...
    local stage=$1 start=$2 out=$3
    shift 3
    [ -e "$out/final/training.json" ] || "$PYTHON" -m training.grpo --start-from "$start" --stage "$stage" --out "$out" "${COMMON[@]}" "$@"
}

from=$START
if [ "$PLACE_STEPS" -gt 0 ]; then
    grpo placement "$START" "$OUT/place" "${PLACE[@]}" "steps=$PLACE_STEPS"
    from=$OUT/place/final
fi
grpo movement "$from" "$OUT/move" "${MOVE[@]}" "steps=$MOVE_STEPS"
"$PYTHON" -m training.curves "stage 2=$OUT/move" --window 10 --out "$OUT/curves.png" \
    --plot reward/overall,reward/point_closeness,reward/point_refinement,reward/lane_gain,kl,entropy

for name in $ABLATE; do
    grpo movement "$from" "$OUT/without-$name" "${MOVE[@]}" "steps=$ABLATE_STEPS" "rewards.driving_movement.$name=0"
done

[ -e "$OUT/bundle" ] || "$PYTHON" -m training.export "$OUT/move/final" --out "$OUT/bundle"
"$PYTHON" -m training.evaluate --dataset "$DATASET" --limit "$LIMIT" --bundle "$START" --out "$OUT/eval-start"
"$PYTHON" -m training.evaluate --dataset "$DATASET" --limit "$LIMIT" --bundle "$OUT/bundle" --out "$OUT/eval-grpo"
"$PYTHON" -m training.compare "start=$OUT/eval-start" "grpo=$OUT/eval-grpo" --out "$OUT/compare.html"
