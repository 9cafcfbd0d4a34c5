"""A GAN of your own in one file. Train it: gan train --system ./my_gan.py

Only `networks` must be written: G takes z (and a label, where the data has classes), D a sample (and its label). The
loss, penalties, augmentations, optimisers, turns and export follow the settings; override `generate`, `discriminate`,
`players`, `augmentations`, `turns`, `schedules`, `graphs` or `metrics` to change them.
"""

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from gan.trainer import DataInfo, Options, System, setting


@dataclass(frozen=True, kw_only=True)
class MyOptions(Options):
    """Settings of your own: gan train --system ./my_gan.py --set hidden=512"""

    hidden: int = setting(256, "units of the hidden layers", above=0)


class Generator(nn.Module):
    """z -> image. No batch statistics and no random numbers in eval mode: the export proves it."""

    def __init__(self, latent: int, hidden: int, data: DataInfo) -> None:
        super().__init__()
        layers = [nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, prod(data.shape))]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.shape = data.shape

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).reshape(-1, *self.shape)  # (B, C, H, W) of [-1, 1]


class MyGAN(System):
    """Fully connected, without labels."""

    name = "my-gan"
    options_type = MyOptions

    @classmethod
    def preset(cls, data: DataInfo) -> MyOptions:
        return MyOptions(labels=False, r1=1.0, g_learning_rate=1e-3, d_learning_rate=1e-3)

    def networks(self) -> dict[str, nn.Module]:
        o = self.options
        assert isinstance(o, MyOptions)
        inside = [nn.Linear(prod(self.data.shape), o.hidden), nn.LeakyReLU(0.2)]
        d = nn.Sequential(nn.Flatten(), *inside, nn.Linear(o.hidden, 1))
        return {"G": Generator(o.latent, o.hidden, self.data), "D": d}
