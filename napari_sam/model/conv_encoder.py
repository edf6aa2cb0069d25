"""Convolutional image encoder of the bundled default model (ours).

Dense 3 x 3 convolutions in channels-last bfloat16 reach the highest arithmetic rate
of all layers on a CPU, so a residual network of them gives the most quality per CPU
second. It can be trained on windows smaller than the 1024 px of inference, and
normalises by the surroundings (`LocalGroupNorm`), so that a window and the whole frame
see the same. Batch normalisation was rejected: in batches of eight windows it took 400
steps to the losses that group normalisation had after 200; so was layer normalisation
of each pixel, which was slower, too (one run each, fluorescence nuclei).

What convolutions cannot say is which pixels are one object: two equal nuclei get
equal features, and the mask decoder, made for features of a vision transformer that
knows positions, cannot part them. So the encoder estimates from every place where
the centre of its object lies, and adds that position, in sines and cosines, to the
embedding: all of one object then carries one code, and neighbours carry others.
The code says where in the frame something lies, and what is decoded depends on it. So
it can be added later (`ConvEncoder.place`): what two crops see may be placed alike.

Rejected: depthwise convolutions (bound by memory: an eighth of the rate, measured on a
Zen 5 core in bfloat16). What the code of centres gains by itself was not measured.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.model.config import ConvConfig
from napari_sam.model.layers import LayerNorm2d, LocalGroupNorm


class ConvEncoder(nn.Module):
    """Turn a normalised crop into its embedding.

    Parameters
    ----------
    config : ConvConfig
        Sizes.
    out_chans : int
        Channels of the embedding.
    """

    def __init__(self, config: ConvConfig, out_chans: int) -> None:
        super().__init__()
        first = config.widths[0]
        self.stem = nn.Sequential(
            ConvNorm(3, first // 2, at=2, stride=2),
            ConvNorm(first // 2, first, at=4, stride=2),
        )
        self.stages = nn.ModuleList()
        previous = first
        for index, (width, depth) in enumerate(
            zip(config.widths, config.depths, strict=True)
        ):
            layers: list[nn.Module] = []
            at = 4 * 2**index
            if index:
                layers.append(ConvNorm(previous, width, at=at, stride=2))
            layers.extend(ResidualBlock(width, at) for _ in range(depth))
            self.stages.append(nn.Sequential(*layers))
            previous = width
        self.lateral = nn.Conv2d(config.widths[2], out_chans, kernel_size=1)
        self.coarse = nn.Conv2d(config.widths[3], out_chans, kernel_size=1)
        self.neck = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.centres = CentreCode(out_chans)
        self.norm = LayerNorm2d(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, out_chans, S / 16, S / 16); S a multiple of 32."""
        return self.place(self.look(x))

    def with_offsets(
        self, x: Tensor, origin: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Tensor]:
        """Encode, and tell where the objects' centres were supposed to be.

        Parameters
        ----------
        x : (B, 3, H, W) tensor
            Normalised; sides are multiples of 32.
        origin : tuple of int
            Row and column of ``x`` in the input frame, in cells of 16 px.

        Returns
        -------
        embedding : (B, out_chans, H / 16, W / 16) tensor
        offsets : (B, 2, H / 8, W / 8) float32 tensor
            See `CentreCode`.
        """
        features, offsets = self._seen(x)
        with _in_float32(x):
            embedding = self.norm(features + self.centres(offsets, origin))
        return embedding, F.pixel_shuffle(offsets.float(), 2)

    def look(self, x: Tensor) -> Tensor:
        """Encode all but where in the frame it is.

        Parameters
        ----------
        x : (B, 3, H, W) tensor
            As for `with_offsets`.

        Returns
        -------
        (B, out_chans + 8, H / 16, W / 16) float32 tensor
            For `place`: features, then where centres lie from each quarter of a cell.
        """
        return torch.cat([part.float() for part in self._seen(x)], dim=1)

    def place(self, seen: Tensor, origin: tuple[int, int] = (0, 0)) -> Tensor:
        """Say of what `look` returned, or part of it, where in the frame it is.

        Parameters
        ----------
        seen : (B, out_chans + 8, e, f) float32 tensor
        origin : tuple of int
            Row and column in the frame, in cells.

        Returns
        -------
        (B, out_chans, e, f) float32 tensor
            The embedding.
        """
        features, offsets = seen.split(
            [seen.shape[1] - CentreCode.CHANNELS, CentreCode.CHANNELS], 1
        )
        with _in_float32(seen):
            embedding: Tensor = self.norm(features + self.centres(offsets, origin))
        return embedding

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and offsets, neither of which knows of the frame."""
        x = x.contiguous(memory_format=torch.channels_last)
        with _in_float32(x):
            x = self.stem(x)
        for stage in self.stages[:3]:
            x = stage(x)
        coarse = self.stages[3](x)
        with _in_float32(x):
            fused = self.lateral(x) + F.interpolate(
                self.coarse(coarse),
                scale_factor=2.0,
                mode="bilinear",
                align_corners=False,
            )
            features = F.relu(fused)
            return self.neck(features), self.centres.offsets(features)


def _in_float32(x: Tensor) -> torch.autocast:
    """Compute first and last layers with ``x`` in float32, unless they are trained.

    With sums of residual blocks in float32, too, half of the error of bfloat16 is left
    (0.0043 instead of 0.0086 of the embedding of a histology section), for a tenth of
    the time.
    """
    kind = x.device.type
    trains = torch.is_grad_enabled() and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=trains)


class CentreCode(nn.Module):
    """Where the centre of each place's object lies, as sines and cosines.

    A cell of 16 px has four places, its quarters. For each an offset to the centre of
    the object there is estimated; the position it leads to is encoded as in
    `napari_sam.model.prompt_encoder`, with half of `N_FREQUENCIES` each for rough and
    fine differences.

    Parameters
    ----------
    width : int
        Channels of the features and of the code.
    """

    N_FREQUENCIES = 32
    FINEST = 1 / 32
    """Turns per pixel of the finest projection, on average; the roughest is 1/1024."""
    UNIT = 32.0
    """Pixels of the frame for which the estimate is 1."""
    CHANNELS = 4 * 2
    """Numbers of a cell that say where centres lie."""

    projection: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(width, self.CHANNELS, kernel_size=3, padding=1)
        self.mix = nn.Conv2d(4 * 2 * self.N_FREQUENCIES, width, kernel_size=1)
        deviations = torch.logspace(-10, math.log2(self.FINEST), self.N_FREQUENCIES, 2)
        projection = torch.randn(2, self.N_FREQUENCIES) * deviations
        self.register_buffer("projection", projection)

    def forward(self, offsets: Tensor, origin: tuple[int, int]) -> Tensor:
        """Encode the centres that offsets of features speak of.

        Parameters
        ----------
        offsets : (B, 8, e, f) tensor
            (x, y) from the middle of each place to the centre, in units of `UNIT`: x
            of the four quarters of a cell, row by row, then y.
        origin : tuple of int
            Row and column of the first cell in the frame.

        Returns
        -------
        (B, C, e, f) tensor
        """
        # Positions need more digits than bfloat16 has.
        with torch.autocast(offsets.device.type, enabled=False):
            # cells first, so that each is a row of the product
            moved = offsets.float().permute(0, 2, 3, 1).unflatten(3, (2, 4)).mT
            at = self._places(offsets, origin) + self.UNIT * moved  # B, e, f, 4, 2
            angles = at @ (2 * math.pi * self.projection)
            waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
        # a channel of the kernel is a wave of a quarter, quarters last
        kernel = self.mix.weight.unflatten(1, (-1, 4)).flatten(2).mT.flatten(1)
        code: Tensor = F.linear(waves.flatten(3), kernel, self.mix.bias)
        return code.permute(0, 3, 1, 2)

    @staticmethod
    def _places(offsets: Tensor, origin: tuple[int, int]) -> Tensor:
        """Return the middles of the quarters in the frame, (x, y), (e, f, 4, 2)."""
        height, width = offsets.shape[-2:]
        y = 8 * torch.arange(2 * height, device=offsets.device) + 16 * origin[0] + 3.5
        x = 8 * torch.arange(2 * width, device=offsets.device) + 16 * origin[1] + 3.5
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
        cells = grid.view(height, 2, width, 2, 2).transpose(1, 2)
        return cells.reshape(height, width, 4, 2)


class ConvNorm(nn.Sequential):
    """Convolution of 3 x 3, normalisation, ReLU; ``at`` is the stride behind it."""

    def __init__(self, in_chans: int, out_chans: int, at: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chans, out_chans, 3, stride=stride, padding=1, bias=False),
            LocalGroupNorm(out_chans, at),
            nn.ReLU(),
        )


class ResidualBlock(nn.Module):
    """Two convolutions around which the input is added (He et al. 2016)."""

    def __init__(self, width: int, at: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width, at)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = LocalGroupNorm(width, at)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same; in float32 unless it is trained."""
        change = self.norm(self.second(self.first(x)))
        return F.relu((x if torch.is_grad_enabled() else x.float()) + change)
