"""THE token table: every token that the model writes, from one specification; nothing else counts tokens by hand.

Local ids run from 0 in the order of `TABLE`; a model's own ids are ``first_id + local`` (see `getok_drive.bundle`), so the
table can be appended to any language model's vocabulary in one block.

Source: GETok (arXiv 2512.10554), section 3: an n x n lattice of grid tokens, nine offsets and ``<DELETE>``.
"""

from __future__ import annotations

from dataclasses import dataclass

GRID_SIZE = 32  # n: cells along each image axis
OFFSET_ROUNDS = 3  # refinement rounds; round r moves by 1 / (2**r * n) of the image (round 1: 1/64, the paper's m)

LANE_TYPES = ("solid", "dashed", "double")
LANE_COLORS = ("white", "yellow")
BOX_CLASSES = ("car", "truck", "bus", "two_wheeler", "pedestrian", "cone", "barrier", "debris", "fallen_tree", "works")
SIGN_CLASSES = (
    "stop", "yield", "speed_limit", "prohibition", "warning", "mandatory", "direction", "crosswalk", "traffic_light",
)  # fmt: skip
SIGN_COLORS = ("red", "yellow", "green", "blue", "white", "orange", "black")
VISIBLE_STATES = ("fully_visible", "partly_occluded", "mostly_occluded")
ROAD_BLOCKAGES = ("not_blocking", "partly_blocking", "fully_blocking")
SURFACE_CONDITIONS = ("dry", "wet", "snowy", "unpaved")
TRAFFIC_DENSITIES = ("no_traffic", "light_traffic", "medium_traffic", "dense_traffic")

KIND_TOKENS = ("<lane>", "<drivable>", "<box>", "<sign>")
STRUCTURE_TOKENS = ("<seg>", "</seg>", "<offset>", "</offset>", "<answer>", "</answer>", "<think>", "</think>", "</scene>")


def _unique(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for group in groups for word in group))


WORDS = _unique(
    LANE_TYPES, LANE_COLORS, BOX_CLASSES, SIGN_CLASSES, SIGN_COLORS,
    VISIBLE_STATES, ROAD_BLOCKAGES, SURFACE_CONDITIONS, TRAFFIC_DENSITIES,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The table for one grid size; `TABLE` is the project's."""

    grid_size: int = GRID_SIZE

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every token's text, in id order: grid (row by row), offsets, ``<DELETE>``, structure, kinds, words."""
        n = self.grid_size
        grid = tuple(f"<grid_{i}_{j}>" for j in range(n) for i in range(n))
        offsets = tuple(f"<OFF_{du}_{dv}>" for dv in (-1, 0, 1) for du in (-1, 0, 1))
        return (*grid, *offsets, "<DELETE>", *STRUCTURE_TOKENS, *KIND_TOKENS, *(f"<{word}>" for word in WORDS))

    @property
    def offset_base(self) -> int:
        """Id of ``<OFF_-1_-1>``; ``<OFF_du_dv>`` is ``offset_base + 3 * (dv + 1) + (du + 1)``."""
        return self.grid_size**2

    @property
    def delete(self) -> int:
        """Id of ``<DELETE>``."""
        return self.offset_base + 9

    @property
    def spatial_count(self) -> int:
        """Number of spatial tokens: the grid, nine offsets and ``<DELETE>`` (1034 for n = 32)."""
        return self.delete + 1


TABLE = TokenTable()
TOKENS: tuple[str, ...] = TABLE.tokens
TOKEN_ID: dict[str, int] = {text: index for index, text in enumerate(TOKENS)}
