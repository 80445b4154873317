"""THE prompts and the chat layout: training and runtime assemble every conversation from the segments given here.

The layout is that of Qwen2.5-VL without a system turn, and its special tokens are spelt as text; IMAGE stands for the visual
tokens, which the caller puts in between:

    <|im_start|>user
    <|vision_start|>IMAGE<|vision_end|>PROMPT<|im_end|>
    <|im_start|>assistant
    PROPOSAL<|im_end|>
    <|im_start|>user
    REFINE_PROMPT<|im_end|>
    <|im_start|>assistant
    REFINEMENT<|im_end|>
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from getok_drive.errors import InputError
from getok_drive.tokens.codec import to_text
from getok_drive.tokens.vocab import (
    BOX_CLASSES,
    GRID_SIZE,
    ROAD_BLOCKAGES,
    SIGN_CLASSES,
    SIGN_COLORS,
    SURFACE_CONDITIONS,
    TRAFFIC_DENSITIES,
    VISIBLE_STATES,
)

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END = "<|vision_start|>", "<|vision_end|>"

PROPOSE_PROMPT = "Find the lanes, the drivable area, the objects and the traffic signs."
REFINE_PROMPT = "Refine each point."

# The classification tasks: an attribute, the question about a region, and the words that may answer it.
CLASSIFY_PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "box_class": "Which object is in this region?",
        "visible_state": "How much of this region is visible?",
        "road_blockage": "Does this region block the road?",
        "surface_condition": "What is the road surface like?",
        "traffic_density": "How dense is the traffic?",
        "sign_class": "Which traffic sign is in this region?",
        "sign_color": "Which color has this traffic sign?",
    }
)
CLASSIFY_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "box_class": BOX_CLASSES,
        "visible_state": VISIBLE_STATES,
        "road_blockage": ROAD_BLOCKAGES,
        "surface_condition": SURFACE_CONDITIONS,
        "traffic_density": TRAFFIC_DENSITIES,
        "sign_class": SIGN_CLASSES,
        "sign_color": SIGN_COLORS,
    }
)

# The other domains of ``training.sft --domain``: an instruction and its paraphrases. The first is the one to ask at run time;
# ``{text}`` is a phrase or question, ``{region}`` grid tokens. They are no part of `all_prompts` and `prompt_hash`: tokenizers
# and bundles of the driving model do not depend on them.
TASK_PROMPTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "referring": (
            "Find {text}: its box and its mask.",
            "Where is {text}? Give box and mask.",
            "Box and mask of {text}, please.",
        ),
        "segmentation": ("Segment each {text}.", "Mark every {text} in the picture.", "Show the masks of all that is {text}."),
        "reasoning": ("{text} Answer with the mask.", "{text} Show it as a mask.", "Segment the answer: {text}"),
        "generalized": ("Segment all that is meant by: {text}", "Mark each target of: {text}", "Which objects are meant? {text}"),
        "caption": ("Describe the region {region}.", "What is at {region}?", "Write a phrase for {region}."),
        "pointing": ("Point to {text}.", "Put a point on each of: {text}", "Show me {text} with points."),
    }
)
# How the region of a classification can be given instead of grid tokens (table 4 of the paper compares them).
DRAWN_REGION, TEXT_REGION = " It is outlined in red.", " It is at {region}."


def propose_segments() -> tuple[str, str]:
    """Text before and after the visual tokens of the propose turn; the model's proposal follows the second."""
    return chat_segments(PROPOSE_PROMPT)


def refine_segment() -> str:
    """Text between ``</scene>`` and ``<offset>``: it ends the proposal's turn and asks for the refinement."""
    return next_turn(REFINE_PROMPT)


def chat_segments(prompt: str) -> tuple[str, str]:
    """Text before and after the visual tokens of a conversation that a prompt of any kind opens."""
    return f"{TURN_START}user\n{IMAGE_START}", f"{IMAGE_END}{prompt}{TURN_END}\n{TURN_START}assistant\n"


def next_turn(prompt: str) -> str:
    """Text between two answers: it ends the assistant's turn and asks the next thing."""
    return f"{TURN_END}\n{TURN_START}user\n{prompt}{TURN_END}\n{TURN_START}assistant\n"


def classify_segments(attribute: str, region: Sequence[int] = (), hint: str = "") -> tuple[str, str]:
    """Text before and after the visual tokens of a classification; the model answers with one word token.

    Args:
        attribute: a key of `CLASSIFY_PROMPTS`.
        region: the region in question as local grid ids: one cell (a point), two (a box) or a set (a mask). Empty for a question
            about the whole picture.
        hint: said after the question where the region is given in another way (`DRAWN_REGION`, `TEXT_REGION`).

    Raises:
        InputError: on an unknown attribute or an id that is not a grid token.
    """
    if attribute not in CLASSIFY_PROMPTS:
        raise InputError(f"classification: unknown attribute {attribute!r}; expected one of {', '.join(CLASSIFY_PROMPTS)}")
    if not all(0 <= cell < GRID_SIZE**2 for cell in region):
        raise InputError(f"classification: the region must hold grid tokens only, got ids {list(region)!r}")
    return chat_segments(f"{CLASSIFY_PROMPTS[attribute]}{hint}{to_text(region)}")


def task_segments(task: str, text: str = "", region: Sequence[int] = (), variant: int = 0) -> tuple[str, str]:
    """Text before and after the visual tokens of a task of `TASK_PROMPTS`.

    Args:
        task: a key of `TASK_PROMPTS`.
        text: the phrase or question; what looks like a token in it is broken up (see `plain_text`).
        region: local grid ids, for tasks about a region.
        variant: which paraphrase; 0 is the one for run time.

    Raises:
        InputError: on an unknown task, or an id that is not a grid token.
    """
    if task not in TASK_PROMPTS:
        raise InputError(f"prompt: unknown task {task!r}; expected one of {', '.join(TASK_PROMPTS)}")
    if not all(0 <= cell < GRID_SIZE**2 for cell in region):
        raise InputError(f"prompt: the region must hold grid tokens only, got ids {list(region)!r}")
    return chat_segments(TASK_PROMPTS[task][variant].format(text=plain_text(text), region=to_text(region)))


def plain_text(text: str) -> str:
    """A text from outside as one line in which nothing reads as a token: ``<`` before a letter, ``/`` or ``|`` gets a space."""
    return re.sub(r"<(?=[A-Za-z/|])", "< ", " ".join(text.split()))


def all_prompts() -> tuple[str, ...]:
    """Every text that can stand in a conversation outside the token table, for building a small tokenizer."""
    return ("user\n", "assistant\n", "\n", PROPOSE_PROMPT, REFINE_PROMPT, *CLASSIFY_PROMPTS.values())


def prompt_hash() -> str:
    """SHA-256 (hexadecimal) of all segments and answer words; a bundle trained on other prompts is refused by it."""
    classify = {name: [*classify_segments(name), *CLASSIFY_CHOICES[name]] for name in sorted(CLASSIFY_PROMPTS)}
    text = json.dumps([propose_segments(), refine_segment(), classify], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
