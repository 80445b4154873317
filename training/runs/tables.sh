# Shared by table4.sh and table5.sh: sizes, the frames, and the runs one after the other. Stop it whenever you like: called again,
# a run that was stopped goes on from its last checkpoint, and a run that is done is left alone.
#
#     SHAPE=short   a decoder of 3 layers that reads the tower's tokens as they are (docs/tables.md has its numbers): table 5 three seeds of
#                   400 steps, a minute (grid) to six (text) a run on an idle core; table 4 one seed of 2000 steps
#     SHAPE=full    three seeds, 2400 steps, the real architecture: about half an hour a run on an idle core
#
# Everything can be set on its own: OUT, SEEDS, STEPS, LAYERS, READING, TRAIN, TEST, POSITIONS, TOWER, FORMS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python}
SHAPE=${SHAPE:-short}
case $SHAPE in
    short) SEEDS=${SEEDS:-0 1 2} STEPS=${STEPS:-400} LAYERS=${LAYERS:-3} READING=${READING:-read} TRAIN=${TRAIN:-12000} TEST=${TEST:-500} ;;
    full) SEEDS=${SEEDS:-0 1 2} STEPS=${STEPS:-2400} LAYERS=${LAYERS:-0} READING=${READING:-rewritten} TRAIN=${TRAIN:-20000} TEST=${TEST:-500} ;;
    *) echo "SHAPE=$SHAPE: expected short or full" >&2; exit 2 ;;
esac
OUT=${OUT:-runs/tables-$SHAPE}
TOWER=${TOWER:-getok_drive/bundles/nano}
POSITIONS=${POSITIONS:-image}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

table() { # task, forms...
    local task=$1
    shift
    "$PYTHON" -m training.representations frames --out "$OUT/frames" --train "$TRAIN" --test "$TEST"
    for seed in $SEEDS; do
        for form in "$@"; do
            "$PYTHON" -m training.representations run "$task" "$form" --frames "$OUT/frames" --tower "$TOWER" --seed "$seed" \
                --steps "$STEPS" --layers "$LAYERS" --reading "$READING" --positions "$POSITIONS" \
                --out "$OUT/$task-$form-$POSITIONS-$seed"
        done
    done
    "$PYTHON" -m training.representations table "$OUT"
}
