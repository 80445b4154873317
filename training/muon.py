"""Muon: momentum whose matrices are made orthogonal before the step.

K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024), with the step's size of J. Liu et al.,
*Muon is scalable for LLM training* (2025), eq. 4, so that AdamW's learning rate and weight decay serve. ``torch.optim.Muon``
computes the same one matrix after the other and in bfloat16, for which a CPU without bfloat16 units takes longer than for all the
rest of a step; here all matrices of one shape go together, in float32 on a CPU, and several processes share them out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial a x + b x^3 + c x^5, Jordan et al.
_ADAM_RMS = 0.2  # of an entry of AdamW's usual step in units of its rate, Liu et al.


def orthogonalized(stack: Tensor, steps: int = 5) -> Tensor:
    """Matrices with the same singular vectors and all singular values near 1 (0.7 to 1.2): Newton and Schulz's iteration.

    Args:
        stack: ``(N, rows, columns)``.
        steps: of the iteration.

    Returns:
        The same shape and type.
    """
    a, b, c = _COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = stack.to(torch.bfloat16) if stack.is_cuda else stack
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Muon on matrices.

    Args:
        params: 2-D, whole (not cut up over processes). One of ``(3 d, d)``, queries, keys and values in one, counts as three.
        lr: as for AdamW.
        weight_decay: decoupled, as AdamW's.
        momentum: of the gradients' running mean, with Nesterov's look ahead.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step, from the gradients as they are."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                mean = state["momentum"] = state["momentum"] if state else torch.zeros_like(p)
                mean.lerp_(p.grad, 1 - group["momentum"])
                direction = p.grad.lerp(mean, group["momentum"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                parts = 3 if p.shape[0] == 3 * p.shape[1] else 1
                for matrix, part in zip(p.chunk(parts), direction.chunk(parts), strict=True):
                    by_shape[part.shape].append((matrix, part))
            for shape, pairs in by_shape.items():
                size = group["lr"] * _ADAM_RMS * max(shape) ** 0.5
                for (matrix, _), update in zip(pairs, _shared_out([part for _, part in pairs]), strict=True):
                    matrix.add_(update, alpha=-size)


def _shared_out(matrices: list[Tensor]) -> Tensor:
    """`orthogonalized`, every process doing its share."""
    stack = torch.stack(matrices)
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return orthogonalized(stack)
    count, rank = distributed.get_world_size(), distributed.get_rank()
    share = -(-len(stack) // count)
    padded = torch.cat([stack, stack.new_zeros(share * count - len(stack), *stack.shape[1:])])
    own = orthogonalized(padded[rank * share : (rank + 1) * share]).contiguous()
    parts = [torch.empty_like(own) for _ in range(count)]
    distributed.all_gather(parts, own)
    return torch.cat(parts)[: len(stack)]
