"""Two processes that train together end where one process would, and stop together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.runtime import InputError
from gan.trainer import Checkpoint, Request, train
from gan.trainer.config import make_config, make_options
from gan.trainer.dataset import Dataset
from gan.trainer.distributed import ALONE, World, check_batch
from gan.trainer.engine import Training
from gan.trainer.systems import load

Given = dict[str, int | float | str | bool | None]
SCRIPT = """
import os
import sys
from pathlib import Path
from gan.trainer import Request, train
given = {given!r} | {{"steps": {steps}}}
outcome = train(Request(given=given, out=Path({out!r}), threads=1, system={system!r}))
print("finished" if outcome.finished else "stopped", outcome.step, outcome.signal, flush=True)
names = [Path("/proc/self/task", thread, "comm").read_text() for thread in os.listdir("/proc/self/task")]
assert not any("gloo" in name for name in names), names
"""

# A system without batch norm: with it each process has statistics of its own slice.
SYSTEM = '''
"""A small system without batch norm."""
import torch
from torch import nn
from gan.runtime import Draw, Field
from gan.trainer import Graph, System, image_field


class Tracked(nn.Module):
    """A running mean of its input, as truncation needs of styles."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, z):
        if self.training:
            self.mean.lerp_(z.detach().mean(0), 0.2)
        return z


class Plain(System):
    name = "plain"

    def networks(self):
        side = self.data.height
        g = nn.Sequential(Tracked(), nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, side * side), nn.Tanh())
        d = nn.Sequential(nn.Linear(side * side, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
        return {"G": nn.Sequential(g, nn.Unflatten(1, (1, side, side))), "D": nn.Sequential(nn.Flatten(), d)}

    def generate(self, live, batch):
        return {"fake": live.networks["G"](batch["z"])}

    def discriminate(self, live, sample, batch):
        return live.networks["D"](sample)

    def graphs(self):
        z = Field("z", (4,), "latent", draw=Draw("normal"))
        return {"image": Graph((z,), (image_field(self.data),), lambda nets: nets["G"])}
'''


def start(
    out: Path, system: Path, given: Given, steps: int, rank: int, port: int
) -> subprocess.Popen[str]:
    environment = os.environ | {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    code = SCRIPT.format(given=given, steps=steps, out=str(out), system=str(system))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tiny() -> Callable[[World], Training]:
    """A training of a tiny cgan on a few random digits, in a given world."""
    rng = np.random.default_rng(0)
    data = Dataset(
        "noise", rng.integers(0, 256, (16, 1, 8, 8), np.uint8), np.arange(16) % 2, ("0", "1")
    )

    def make(world: World) -> Training:
        kind, source = load("cgan")
        config = make_config(kind, source, data.info, {"width": 2, "batch_size": 4}, steps=2)
        system = kind(make_options(kind, data.info, config.options), data.info)
        return Training(system, data, config, torch.device("cpu"), world)

    return make


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.py"
    path.write_text(SYSTEM)
    return path


def test_two_processes_end_where_one_would(plain: Path, tmp_path: Path) -> None:
    given: Given = {"resolution": 8, "batch_size": 8, "r1": 0.5, "r2": 0.5, "loss": "relativistic"}
    port = free_port()
    both = [start(tmp_path / "two", plain, given, 6, rank, port) for rank in range(2)]
    ends = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert all(out.startswith("finished 6 None") for out, _ in ends)
    train(Request(given=given | {"steps": 6}, out=tmp_path / "one", threads=1, system=str(plain)))
    one, two = (Checkpoint.load(tmp_path / name / "model.pt").content for name in ("one", "two"))
    for network, state in one["networks"].items():
        for name, tensor in state.items():
            torch.testing.assert_close(two["networks"][network][name], tensor, rtol=1e-4, atol=1e-6)
    assert one["progress"] == two["progress"]


def test_a_signal_to_one_process_stops_both_at_the_same_step(plain: Path, tmp_path: Path) -> None:
    given: Given = {"resolution": 8, "batch_size": 8, "seed": 1}
    port = free_port()
    both = [start(tmp_path / "run", plain, given, 10**6, rank, port) for rank in range(2)]
    while not (tmp_path / "run" / "samples").exists():
        assert both[0].poll() is None, both[0].communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    both[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=240) for process in both]
    words = [out.split() for out, _ in ends]
    assert words[0][0] == words[1][0] == "stopped" and words[0] == words[1], ends
    checkpoint = Checkpoint.load(tmp_path / "run" / "model.pt")
    assert checkpoint.step == int(words[0][1]) and not checkpoint.finished


def test_a_batch_that_cannot_be_dealt_out_is_refused() -> None:
    check_batch(7, ALONE)
    check_batch(8, World(0, 2))
    with pytest.raises(InputError, match="multiple of 2"):
        check_batch(7, World(1, 2))


def test_slices_are_disjoint_and_together_the_batch() -> None:
    batch = torch.arange(12)
    parts = [World(rank, 3).slice(batch) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == batch.tolist()
    assert ALONE.slice(batch) is not None and torch.equal(ALONE.slice(batch), batch)


def test_alone_the_averages_are_the_values_themselves() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    averages = ALONE.average([weight], values)
    assert torch.equal(averages, values) and not averages.requires_grad
    assert weight.grad.tolist() == [3.0, 4.0]


def test_each_rank_draws_its_own_numbers_without_a_generator(tiny: Callable[..., Training]) -> None:
    drawn = []
    for world in (World(0, 2), World(1, 2), World(0, 2)):
        live = tiny(world)
        torch.manual_seed(0)
        live.stages = []
        with pytest.raises(AssertionError):  # no stage: only the seed is set
            live.run_step()
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_torchrun_trains_by_the_command_and_one_process_tells(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
        str(free_port()), "-m", "gan.cli", "train", "--steps", "2", "--set", "width=4", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained 2 steps") == 1
    assert Checkpoint.load(tmp_path / "run" / "model.pt").processes == 2
