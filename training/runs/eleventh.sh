# Where nano's runs begin unless START says otherwise: the eleventh weights, the last before GRPO, from the commit that shipped them.
START=${START:-runs/nano-sft}
if [ "$START" = runs/nano-sft ] && [ ! -e "$START" ]; then
    mkdir -p "$START"
    git archive 83f6199 getok_drive/bundles/nano | tar -x --strip-components=3 -C "$START"
fi
