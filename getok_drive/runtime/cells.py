"""Grid tokens that see: what the picture shows in each cell of the grid, read from the visual tokens, for small models.

In GETok (arXiv 2512.10554) the row of a grid token is learnt once and says *where* a cell is. A large decoder finds out what is
to be seen there; a small one does it badly: a linear map of nano's visual tokens finds twice as many signs as its decoder
writes (training/LOG.md). With a `CellReader` a grid token also says *what* is there. For the features ``f_c`` of cell c:

- its input embedding is ``e_c + W f_c``: whatever is written next, and every offset asked for this cell, begins there;
- its logit after the hidden state h is ``h . e_c + (Q h) . f_c``, as a pointer network's (Vinyals et al., arXiv 1506.03134).

Three things may be added, each for what is too small for a visual token, and each by a setting of its own (`CellSettings`):

- *detail*: the features also come from what the tower's convolutions see in the cell, past the tower;
- *blocks* of convolutions over the grid, so that a cell knows its neighbours: a corner is where something ends;
- *glances*: before any token's logit, h looks at the cells once more, ``h + T [sum_c a_c f_c]`` with the attention
  ``a = softmax_c((L h) . f_c / sqrt(channels))`` of each of some heads, so that words are read where the thing is.

W, Q, T and the last layers of detail and blocks are zero at first, so that a reader can also be given to a model that was
trained without: it stays what it was until it learns on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from getok_drive.errors import ConfigError
from getok_drive.runtime.stem import ChannelNorm
from getok_drive.tokens.masks import GRID_COUNT
from getok_drive.tokens.vocab import GRID_SIZE

SUBCELLS = 4  # along each side of a visual token: a map of its own resolution, from which the grid's cells are taken


@dataclass(frozen=True, slots=True)
class CellSettings:
    """What ``config.cell_reader`` holds.

    Attributes:
        channels: features of a cell.
        first_id: model id of the first grid token.
        detail: ``(channels, rows, columns)`` of the convolutions' picture in one cell; empty: none.
        blocks: of convolutions over the grid.
        glances: heads of the look before a token's logit.
    """

    channels: int
    first_id: int
    detail: tuple[int, ...] = ()
    blocks: int = 0
    glances: int = 0


class CellBlock(nn.Module):
    """``x + conv(relu(norm(conv(x))))`` over the grid, 3 x 3; nothing but ``x`` at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), ChannelNorm(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, GRID_SIZE, GRID_SIZE)`` to the same shape."""
        risen: Tensor = self.second(functional.relu(self.norm(self.first(x))))
        return x + risen


class CellReader(nn.Module):
    """Features of the grid's cells, and their parts in embeddings and logits.

    Args:
        width: of the visual tokens and of the decoder.
        settings: what the reader has.
    """

    def __init__(self, width: int, settings: CellSettings) -> None:
        super().__init__()
        self.channels, self.first_id, self.heads = settings.channels, settings.first_id, settings.glances
        self.read = nn.Linear(width, SUBCELLS**2 * self.channels)
        self.embed = nn.Linear(self.channels, width, bias=False)
        self.query = nn.Linear(width, self.channels, bias=False)
        self.detail_chw = tuple(settings.detail)
        self.detail = nn.Linear(int(np.prod(self.detail_chw)), self.channels, bias=False) if self.detail_chw else None
        self.blocks = nn.ModuleList(CellBlock(self.channels) for _ in range(settings.blocks))
        self.look = nn.Linear(width, self.heads * self.channels, bias=False) if self.heads else None
        self.tell = nn.Linear(self.heads * self.channels, width, bias=False) if self.heads else None

    @property
    def ids(self) -> slice:
        """Model ids of the grid tokens."""
        return slice(self.first_id, self.first_id + GRID_COUNT)

    @property
    def of_the_picture(self) -> nn.ModuleList:
        """The layers that `forward` is made of; the others belong to the decoder."""
        return nn.ModuleList([self.read, *([self.detail] if self.detail is not None else []), *self.blocks])

    def reset_parameters(self) -> None:
        """Random features that nothing uses yet."""
        self.read.reset_parameters()
        unused = [self.embed, self.query, self.detail, self.tell, *(block.second for block in self.blocks)]
        for layer in unused:
            if layer is not None:
                nn.init.zeros_(layer.weight)
        if self.look is not None:
            self.look.reset_parameters()
        for block in self.blocks:
            block.first.reset_parameters()
            block.norm.reset_parameters()

    def forward(self, visual: Tensor, merged_hw: tuple[int, int], picture: Tensor | None = None) -> Tensor:
        """Features of the cells.

        Args:
            visual: ``(B, K, width)`` visual tokens.
            merged_hw: visual tokens along the height and the width; their product is K.
            picture: ``(B, C, H, W)`` what the tower's convolutions see, for the detail.

        Returns:
            ``(B, GRID_COUNT, channels)``, row by row as the grid tokens are.

        Raises:
            ConfigError: the detail does not fit the settings.
        """
        batch, (rows, columns), side = len(visual), merged_hw, SUBCELLS
        split = self.read(visual).view(batch, rows, columns, side, side, self.channels)
        subcells = split.transpose(2, 3).reshape(batch, rows * side, columns * side * self.channels)
        down, across = (torch.from_numpy(cell_weights(count * side)).to(visual) for count in merged_hw)
        rowwise = (down @ subcells).view(batch, GRID_SIZE, columns * side, self.channels)
        cells = (across @ rowwise).flatten(1, 2)
        if self.detail is not None:
            cells = cells + self.detail(self._by_cell(picture))
        if self.blocks:
            x = cells.transpose(1, 2).unflatten(2, (GRID_SIZE, GRID_SIZE)).contiguous(memory_format=torch.channels_last)
            for block in self.blocks:
                x = block(x)
            cells = x.flatten(2).transpose(1, 2)
        return cells

    def _by_cell(self, picture: Tensor | None) -> Tensor:
        channels, rows, columns = self.detail_chw
        expected = (channels, GRID_SIZE * rows, GRID_SIZE * columns)
        if picture is None or tuple(picture.shape[1:]) != expected:
            found = None if picture is None else tuple(picture.shape[1:])
            raise ConfigError(
                f"cell_reader: detail {self.detail_chw} asks the tower for a picture of (channels, rows, columns) {expected}, "
                f"and it has {found}; another image size, or other strides of conv_stem"
            )
        split = picture.view(len(picture), channels, GRID_SIZE, rows, GRID_SIZE, columns)
        return split.permute(0, 2, 4, 3, 5, 1).reshape(len(picture), GRID_COUNT, -1)

    def glanced(self, hidden: Tensor, cells: Tensor) -> Tensor:
        """Hidden states with what their glances at the cells tell.

        Args:
            hidden: ``(B, T, width)`` after the decoder's last norm.
            cells: ``(B, GRID_COUNT, channels)``.
        """
        if self.look is None or self.tell is None:
            return hidden
        asked = self.look(hidden).unflatten(-1, (self.heads, self.channels)).flatten(1, 2)
        seen = (asked @ cells.transpose(1, 2) * self.channels**-0.5).softmax(-1).to(cells.dtype) @ cells
        told: Tensor = self.tell(seen.view(*hidden.shape[:2], -1))
        return hidden + told

    def embedded(self, ids: Tensor, embeddings: Tensor, cells: Tensor) -> Tensor:
        """Embeddings of tokens, those of grid tokens with what is seen in their cells.

        Args:
            ids: ``(B, T)`` model ids.
            embeddings: ``(B, T, width)`` their rows of the embedding table.
            cells: ``(B, GRID_COUNT, channels)``.
        """
        local = ids - self.first_id
        chosen = local.clamp(0, GRID_COUNT - 1)[..., None].expand(-1, -1, self.channels)
        seen = self.embed(cells.gather(1, chosen))
        return embeddings + seen * ((local >= 0) & (local < GRID_COUNT))[..., None]

    def logits(self, hidden: Tensor, cells: Tensor) -> Tensor:
        """What is added to the grid tokens' logits.

        Args:
            hidden: ``(B, T, width)`` after the decoder's last norm.
            cells: ``(B, GRID_COUNT, channels)``.

        Returns:
            ``(B, T, GRID_COUNT)``.
        """
        return functional.linear(hidden, self.query.weight) @ cells.transpose(1, 2)


def cell_weights(subcells: int) -> npt.NDArray[np.float32]:
    """``(GRID_SIZE, subcells)``: what part of a cell's stretch of an axis lies in each subcell; every row sums to 1."""
    edges = np.linspace(0.0, 1.0, GRID_SIZE + 1)
    bounds = np.linspace(0.0, 1.0, subcells + 1)
    shared = np.minimum(edges[1:, None], bounds[None, 1:]) - np.maximum(edges[:-1, None], bounds[None, :-1])
    return (np.maximum(shared, 0.0) * GRID_SIZE).astype(np.float32)
