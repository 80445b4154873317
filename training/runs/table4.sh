#!/usr/bin/env bash
# Table 4: classification of a given region, drawn, as text, or as grid tokens. See tables.sh.
if [ "${SHAPE:-short}" = short ]; then SEEDS=${SEEDS:-0} STEPS=${STEPS:-2000}; fi
source "$(dirname "${BASH_SOURCE[0]}")/tables.sh"
# shellcheck disable=SC2086 # forms are words
table regions ${FORMS:-drawn text grid}
