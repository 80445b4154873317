"""Rewards: what a written answer is worth, in numpy alone (no torch, no OpenCV), one function each.

| page | rewards |
|---|---|
| `matching` | which prediction answers which label (eq. 6-9, Hungarian) |
| `placement` | stage 1 of the paper: format, non-repetition, mask IoU, box, semantic-critical points (eq. 10-12) |
| `movement` | stage 2 of the paper: point refinement (eq. 13), box refinement, mask IoU gain |
| `driving` | the driving scene: lanes, areas, boxes, signs by the official metrics |
| `driving_movement` | what a refinement mended in it |
| `credit`, `credit_movement` | which element, which point earned it: advantages of single decisions |
| `settings` | every constant and every weight |

Four entry points take a batch and return a list of dicts, one an answer, each with ``overall`` and every reward by name:
`placement_rewards`, `movement_rewards` (masks, boxes and points: the paper's tasks), `driving_placement`, `driving_movement`
(scenes). A reward that a label cannot judge (a kind that the data set does not label) is NaN and takes no part in ``overall``.

Source of the equations: GETok (arXiv 2512.10554), supplement C.3. Equations 6-13 are the paper's; where it names a reward without
giving a formula (format, non-repetition, box, box refinement, mask IoU gain), the docstring says what was chosen and why.
"""

from training.rewards.driving import Completion, driving_placement
from training.rewards.driving_movement import driving_movement
from training.rewards.movement import Refinement, movement_rewards
from training.rewards.placement import Grounding, placement_rewards
from training.rewards.settings import RewardSettings

__all__ = [
    "Completion",
    "Grounding",
    "Refinement",
    "RewardSettings",
    "driving_movement",
    "driving_placement",
    "movement_rewards",
    "placement_rewards",
]
