"""A large image in tiles: each is run with what is around it, and its own part laid on the canvas.

Memory is that of the canvas and of one tile's run. All places are in units of the dynamic axes, so that tiles begin
and end where the network's strides do. Knows neither models nor files: it is given what runs a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .images import Pixels

Span = tuple[int, int]  # begin and end


@dataclass(frozen=True)
class Row:
    """How one axis is divided. length, tile, context: in units; scale: output pixels a unit.

    context: how far a tile sees beyond itself. blended: whether neighbours are blended over it, instead of cut off.
    """

    length: int
    tile: int
    context: int
    scale: int
    blended: bool

    def windows(self) -> Iterator[tuple[Span, Span]]:
        """Each tile, and what is run for it: never less than a tile, and never beyond the image."""
        for begin in range(0, self.length, self.tile):
            end = min(begin + self.tile, self.length)
            last = min(end + self.context, self.length)
            first = max(0, min(begin - self.context, last - self.tile))
            yield (begin, end), (first, last)

    def weights(self, tile: Span, window: Span) -> np.ndarray:
        """Of the window's output pixels, float32: from 0 to 1 across the seam with the tile before."""
        begin, scale = tile[0], self.scale
        place = np.arange(window[0] * scale, window[1] * scale, dtype=np.float32) + 0.5
        seam = self.context * scale if self.blended else 0
        if begin == 0:
            return np.ones_like(place)
        if seam == 0:
            return (place > begin * scale).astype(np.float32)
        return np.clip((place - begin * scale + seam) / (2 * seam), 0, 1)


def run_tiles(
    rows: Row, columns: Row, canvas: Pixels, run: Callable[[Span, Span], Pixels]
) -> Pixels:
    """Fill the canvas uint8 [H, W, C]. run: a window's height and width, in units -> its output, uint8 [H, W, C]."""
    for tile_y, window_y in rows.windows():
        down = rows.weights(tile_y, window_y)[:, None, None]
        for tile_x, window_x in columns.windows():
            right = columns.weights(tile_x, window_x)[None, :, None]
            made = run(window_y, window_x)
            _lay(canvas, made, window_y[0] * rows.scale, window_x[0] * columns.scale, down, right)
    return canvas


def _lay(
    canvas: Pixels, made: Pixels, top: int, left: int, down: np.ndarray, right: np.ndarray
) -> None:
    """Lay a tile over the canvas, which may end before it does."""
    below = canvas[top : top + made.shape[0], left : left + made.shape[1]]
    height, width = below.shape[:2]
    made = made[:height, :width]
    weight = down[:height] * right[:, :width]  # (H, W, 1)
    if weight.min(initial=1) == 1:
        below[:] = made
        return
    mixed = below * (1 - weight) + made * weight
    below[:] = np.rint(mixed).astype(np.uint8)
