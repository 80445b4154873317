#!/usr/bin/env bash
# Table 5: lane polylines by representation. `SHAPE=full training/runs/table5.sh` is the whole of it; see tables.sh.
source "$(dirname "${BASH_SOURCE[0]}")/tables.sh"
# shellcheck disable=SC2086 # forms are words
table lanes ${FORMS:-text bins grid grid-offset grid-offsets}
