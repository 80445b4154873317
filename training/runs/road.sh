#!/usr/bin/env bash
# Nano learns photographs: a short run on real frames, each data set for the kinds it labels, mixed with the world so that nothing is
# forgotten. The data's terms (training/datasets/README.md) are the weights' terms. Called again, it goes on from its last checkpoint.
#
#     DATA=/data OUT=runs/road bash training/runs/road.sh      DATA holds tusimple/, camvid_segnet/, idd_lite/ and road_signs/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python}
DATA=${DATA:?the folder with tusimple/, camvid_segnet/, idd_lite/ and road_signs/}
START=${START:-getok_drive/bundles/nano}
OUT=${OUT:-runs/road}
STEPS=${STEPS:-300}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

"$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "${PROCESSES:-2}" -m training.sft --preset nano --start-from "$START" --out "$OUT" \
    --data 0.40*world:41000000-42000000 --data 0.12*world-crowd:43000000-44000000 \
    --data "0.14*tusimple:$DATA/tusimple" --data "0.12*camvid:$DATA/camvid_segnet" --data "0.12*idd:$DATA/idd_lite" \
    --data "0.10*voc:$DATA/road_signs" recipe.vary=0.7 \
    "stages=(($STEPS,(512,256)),)" optimizer=muon learning_rate=6e-4 warmup_steps=20 decay_steps=$((STEPS - 40)) \
    "loss_weights.kinds=(1.0,1.0,1.3,2.0)" ema_decay=0.99 refine_points=24 threads=1 save_every=50 eval_every=0
AS_NANO=(--name nano-road --rounds 3,box=2 --least-confidence box=0.3,sign=0.25) # confidences calibrated on the world, as nano's are
"$PYTHON" -m training.export "$OUT/final" --out "$OUT/uncalibrated" "${AS_NANO[@]}"
"$PYTHON" -m training.evaluate --dataset world:val --limit 300 --bundle "$OUT/uncalibrated" --fit-calibration --out "$OUT/calibration"
"$PYTHON" -m training.export "$OUT/final" --out "$OUT/bundle" "${AS_NANO[@]}" --calibration "$OUT/calibration/calibration.json"
for set in "tusimple:$DATA/tusimple --tasks lanes" "camvid:$DATA/camvid_segnet --tasks drivable" \
    "idd:$DATA/idd_lite --split val --tasks drivable" "voc:$DATA/road_signs --tasks signs" "world:test"; do
    # shellcheck disable=SC2086 # several words
    "$PYTHON" -m training.evaluate --bundle "$OUT/bundle" --out "$OUT/evaluate/${set%%:*}" --dataset $set
done
