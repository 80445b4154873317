"""Grid tokens that see: what the picture shows in each cell of the grid, read from the visual tokens, for small models.

In GETok (arXiv 2512.10554) the row of a grid token is learnt once and says *where* a cell is. A large decoder finds out what is
to be seen there; a small one does it badly: a linear map of nano's visual tokens finds twice as many signs as its decoder
writes (training/LOG.md). With a `CellReader` a grid token also says *what* is there. For the features ``f_c`` of cell c:

- its input embedding is ``e_c + W f_c``: whatever is written next, and every offset asked for this cell, begins there;
- its logit after the hidden state h is ``h . e_c + (Q h) . f_c``, as a pointer network's (Vinyals et al., arXiv 1506.03134).

W and Q are zero at first, so that a reader can also be given to a model that was trained without: it stays what it was until it
learns on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from getok_drive.tokens.masks import GRID_COUNT
from getok_drive.tokens.vocab import GRID_SIZE

SUBCELLS = 4  # along each side of a visual token: a map of its own resolution, from which the grid's cells are taken


class CellReader(nn.Module):
    """Features of the grid's cells, and their parts in the grid tokens' embeddings and logits.

    Args:
        width: of the visual tokens and of the decoder.
        channels: features of a cell.
        first_id: model id of the first grid token.
    """

    def __init__(self, width: int, channels: int, first_id: int) -> None:
        super().__init__()
        self.channels, self.first_id = channels, first_id
        self.read = nn.Linear(width, SUBCELLS**2 * channels)
        self.embed = nn.Linear(channels, width, bias=False)
        self.query = nn.Linear(width, channels, bias=False)

    @property
    def ids(self) -> slice:
        """Model ids of the grid tokens."""
        return slice(self.first_id, self.first_id + GRID_COUNT)

    def reset_parameters(self) -> None:
        """Random features that nothing uses yet."""
        self.read.reset_parameters()
        nn.init.zeros_(self.embed.weight)
        nn.init.zeros_(self.query.weight)

    def forward(self, visual: Tensor, merged_hw: tuple[int, int]) -> Tensor:
        """Features of the cells.

        Args:
            visual: ``(B, K, width)`` visual tokens.
            merged_hw: visual tokens along the height and the width; their product is K.

        Returns:
            ``(B, GRID_COUNT, channels)``, row by row as the grid tokens are.
        """
        batch, (rows, columns), side = len(visual), merged_hw, SUBCELLS
        split = self.read(visual).view(batch, rows, columns, side, side, self.channels)
        subcells = split.transpose(2, 3).reshape(batch, rows * side, columns * side * self.channels)
        down, across = (torch.from_numpy(cell_weights(count * side)).to(visual) for count in merged_hw)
        rowwise = (down @ subcells).view(batch, GRID_SIZE, columns * side, self.channels)
        return (across @ rowwise).flatten(1, 2)

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
