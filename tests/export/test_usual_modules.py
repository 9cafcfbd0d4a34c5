"""What people build generators of, as torch's exporter writes it, is what the runtime's reader takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gan.export.graph import check_taken
from gan.export.trace import export_program
from gan.runtime.session import Session
from gan.runtime.signature import Field

Layer = Callable[[Tensor], Tensor]

pytestmark = pytest.mark.filterwarnings("ignore")


class First(nn.Module):
    """A recurrent cell, over the rows of an image; the first of its values."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.flatten(1, 2))[0]  # (B, C*H, W)


def attend(x: Tensor) -> Tensor:
    q = x.flatten(2).transpose(1, 2)  # (B, H*W, C)
    q = q.unflatten(2, (2, 4)).transpose(1, 2)  # (B, heads, H*W, C/heads)
    return functional.scaled_dot_product_attention(q, q, q)


def warp(x: Tensor) -> Tensor:
    theta = torch.tensor([[[1.0, 0.1, 0.0], [0.0, 1.0, 0.2]]]).expand(x.shape[0], -1, -1)
    grid = functional.affine_grid(theta, [x.shape[0], 8, 4, 4], align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


ACTIVATIONS = (
    nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU(8), nn.ELU(), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(),
    nn.Softplus(), nn.Softsign(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.GLU(1), nn.Softmax(1),
    nn.LogSoftmax(1), nn.Tanh(), nn.Sigmoid(), nn.Threshold(0.1, 0.0), nn.Dropout(0.5), nn.CELU(), nn.ReLU6(),
)  # fmt: skip
LAYERS = (
    nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.Conv2d(8, 8, 3, padding=1, groups=8),
    nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.BatchNorm2d(8),
    nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(4, 8), nn.LayerNorm([8, 4, 4]), nn.RMSNorm([4]),
    nn.LocalResponseNorm(3), nn.Linear(4, 6), nn.PixelShuffle(2), nn.PixelUnshuffle(2),
    nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(1), nn.ZeroPad2d(1),
    nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.CircularPad2d(1), nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(size=(6, 6), mode="bicubic"), nn.Unfold(2), nn.Flatten(),
)  # fmt: skip
SEQUENCES = (
    First(nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)), First(nn.GRU(4, 5, batch_first=True)),
    First(nn.RNN(4, 5, batch_first=True)), nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
)  # fmt: skip
FUNCTIONS: dict[str, tuple[Layer, ...]] = {
    "arithmetic": (
        lambda x: x.clamp(-1, 1), lambda x: x.clamp(min=0), torch.abs, torch.sqrt, torch.rsqrt, torch.exp, torch.log,
        torch.sign, torch.floor, torch.round, lambda x: x % 2, lambda x: x**2, lambda x: x // 2, torch.erf, torch.sin,
        lambda x: torch.lerp(x, -x, 0.3), lambda x: torch.atan2(x, x + 2), lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: torch.logaddexp(x, x), lambda x: (x > 0) & (x < 1), torch.isnan, torch.nan_to_num,
    ),
    "sums": (
        lambda x: x.mean((2, 3), keepdim=True), lambda x: x.std(1), lambda x: x.var(1), lambda x: x.norm(dim=1),
        lambda x: x.cumsum(1), lambda x: x.sum(), lambda x: x.amax(1), lambda x: x.max(1)[0], lambda x: x.argmax(1),
        lambda x: x.logsumexp(1), lambda x: x.prod(1), lambda x: x.topk(2, 1)[0], lambda x: x.sort(1)[0],
        functional.normalize, lambda x: torch.cosine_similarity(x, x + 1),
    ),
    "shapes": (
        lambda x: torch.cat([x, x], 1), lambda x: torch.stack([x, x]), lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.roll(1, 2), lambda x: x.repeat(1, 2, 1, 1), lambda x: x.repeat_interleave(2, 1),
        lambda x: x[:, ::2, 1:], lambda x: x.unfold(2, 2, 1), lambda x: torch.split(x, 3, 1)[2], torch.triu,
        lambda x: x.chunk(2, 1)[0], lambda x: x.gather(1, x.long() * 0), lambda x: x[:, torch.tensor([2, 0])],
        lambda x: x.expand(2, -1, -1, -1, -1), lambda x: x.index_select(1, torch.tensor([1])),
        lambda x: torch.full_like(x, 2.0), lambda x: torch.arange(4) + x, lambda x: x.masked_fill(x > 0, 1.0),
        lambda x: functional.one_hot((x > 0).long(), 2), lambda x: functional.fold(x.reshape(-1, 32, 4), (4, 4), 2, stride=2),
    ),
    "products": (
        attend, warp, lambda x: x @ x, lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
        lambda x: torch.einsum("...ij,...jk->...ik", x, x), lambda x: torch.outer(x[0, 0, 0], x[0, 0, 1]),
        lambda x: torch.kron(x[0, 0], x[0, 1]), lambda x: torch.baddbmm(x[:, 0], x[:, 0], x[:, 1]),
    ),
    "Fourier": (
        lambda x: torch.fft.rfft2(x).abs(), lambda x: torch.fft.irfft2(torch.fft.rfft2(x)),
        lambda x: torch.fft.rfft(x, n=16).real, lambda x: torch.fft.fft(x).real,
    ),
}  # fmt: skip
GROUPS = {"activations": ACTIVATIONS, "layers": LAYERS, "sequences": SEQUENCES, **FUNCTIONS}


class All(nn.Module):
    """Each of them on one input."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.held = nn.ModuleList(layer for layer in layers if isinstance(layer, nn.Module))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


@pytest.mark.parametrize("name", GROUPS)
def test_usual_modules_are_taken_and_give_what_torch_gives(name: str) -> None:
    torch.manual_seed(0)
    module = All(GROUPS[name]).eval()
    outputs = [f"y{i}" for i in range(len(module.layers))]
    fields = [Field("x", (8, 4, 4), "latent")]
    x = torch.rand(2, 8, 4, 4) + 0.1
    data = export_program(module, (x,), fields, outputs, 20).model_proto.SerializeToString()
    check_taken(data)
    x = torch.rand(3, 8, 4, 4) + 0.1
    session = Session(data, device="cpu", threads=1, example={"x": x.numpy()})
    made = session.run({"x": x.numpy()}, outputs)
    for place, (found, wanted) in enumerate(zip(made, module(x), strict=True)):
        np.testing.assert_allclose(found, wanted.detach().numpy(), 1e-3, 1e-5, err_msg=f"{place}")
