#!/usr/bin/env bash
# More supervised steps for nano, with lanes that bend and cells that are told which way lanes lie: what the thirteenth weights began
# with, before grpo_nano.sh (that run kept the auxiliary head of the one before; bundles have none, so here it starts anew). Called
# again, it goes on from its last checkpoint. 62 minutes on two cores.
#
#     OUT=runs/sft bash training/runs/sft_nano.sh
#     START=runs/sft/final CALIBRATION=getok_drive/bundles/nano/contract.json OUT=runs/grpo bash training/runs/grpo_nano.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source training/runs/eleventh.sh
PYTHON=${PYTHON:-python}
OUT=${OUT:-runs/sft}
STEPS=${STEPS:-1800}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} ACCELERATE_MIXED_PRECISION=${ACCELERATE_MIXED_PRECISION:-bf16}

"$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "${PROCESSES:-2}" -m training.sft --preset nano --start-from "$START" --out "$OUT" \
    --data 0.4*world:140000000-142999999 --data 0.6*world-crowd:143000000-145999999 \
    "stages=(($STEPS,(512,256)),)" optimizer=muon learning_rate=1e-3 warmup_steps=40 decay_steps=$((STEPS * 5 / 12)) \
    ema_decay=0.99 accumulate=4 threads=1 save_every=100 eval_every=0
