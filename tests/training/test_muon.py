"""Muon: directions made orthogonal, steps of AdamW's size, and the same when processes share the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from training.muon import Muon, orthogonalized

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 64, 24), (2, 24, 64)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.linspace(1.0, 30.0, u.shape[-1])
    made = orthogonalized(u * values @ v)
    assert made.shape == shape
    back = u.transpose(1, 2) @ made @ v.transpose(1, 2)
    diagonal = back.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.6 and diagonal.max() < 1.25
    assert (back - torch.diag_embed(diagonal)).abs().max() < 1e-4


def test_a_step_is_as_long_as_adamws_and_goes_downhill():
    generator = torch.Generator().manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(96, 32, generator=generator))
    gradient = torch.randn(96, 32, generator=generator)
    weight.grad = gradient.clone()
    before = weight.detach().clone()
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    step = weight.detach() - before
    assert step.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)
    assert (step * gradient).sum() < 0


def test_queries_keys_and_values_are_three_matrices():
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(48, 16, generator=generator)
    gradient[:16] *= 100
    joint = torch.nn.Parameter(torch.zeros(48, 16))
    apart = [torch.nn.Parameter(torch.zeros(16, 16)) for _ in range(3)]
    joint.grad = gradient.clone()
    for parameter, part in zip(apart, gradient.chunk(3), strict=True):
        parameter.grad = part.clone()
    Muon([joint], lr=0.1, weight_decay=0.0).step()
    Muon(apart, lr=0.1, weight_decay=0.0).step()
    assert torch.allclose(joint.detach(), torch.cat([p.detach() for p in apart]), atol=1e-6)


def test_weights_decay_and_idle_ones_stay():
    used, idle = torch.nn.Parameter(torch.ones(4, 8)), torch.nn.Parameter(torch.ones(4, 8))
    used.grad = torch.zeros(4, 8)
    Muon([used, idle], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(used.detach(), torch.full((4, 8), 0.95))
    assert torch.equal(idle.detach(), torch.ones(4, 8))


def test_momentum_goes_with_the_state():
    def run(steps, optimizer, weight):
        for step in steps:
            weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.step()

    whole, cut = torch.nn.Parameter(torch.zeros(8, 8)), torch.nn.Parameter(torch.zeros(8, 8))
    run(range(4), Muon([whole], 0.1, 0.01), whole)
    first, second = Muon([cut], 0.1, 0.01), Muon([cut], 0.1, 0.01)
    run(range(2), first, cut)
    second.load_state_dict(first.state_dict())
    run(range(2, 4), second, cut)
    assert torch.equal(whole, cut)


PROGRAM = """
import torch
from torch import distributed
from training.muon import Muon
distributed.init_process_group("gloo")
weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(8, 8)] * 3 + [(16, 8)]]
for n, weight in enumerate(weights):
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(n))
Muon(weights, lr=0.1, weight_decay=0.0).step()
torch.save([w.detach() for w in weights], f"{distributed.get_rank()}.pt")
distributed.barrier()
distributed.destroy_process_group()  # a process that leaves while its threads still talk to the other may abort it
"""


def test_two_processes_share_the_work_and_agree_with_one(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(8, 8)] * 3 + [(16, 8)]]
    for n, weight in enumerate(weights):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(n))
    Muon(weights, lr=0.1, weight_decay=0.0).step()
    for rank in range(2):
        for alone, shared in zip(weights, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert torch.allclose(alone.detach(), shared, atol=1e-6)
