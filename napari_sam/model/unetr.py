"""Proposal head of micro-sam: the decoder for distance maps in its checkpoints.

A U-Net that knows nothing but the embedding. One chain of up-sampling blocks unfolds
it to the resolution of the input frame; the other, the decoder, climbs beside it,
joins the chain at each level and sees both at the end. The maps mean what
`napari_sam.model.proposal_head` says.

Two facts of the reference that its sizes alone do not show, but its weights rely on:

- each join takes only the middle half of the chain's channels;
- the blocks of the decoder normalise over the whole frame (instance normalisation
  without parameters), so that they cannot be computed in tiles.

Sources: Archit et al. 2025 (micro-sam, Methods, "Automatic instance segmentation");
parameter names are those of ``decoder_state`` in its checkpoints, whose reference is
``UNETR`` without skip connections in ``torch_em/model/unetr.py`` and
``torch_em/model/unet.py`` (MIT).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.model.config import UnetrConfig

N_MAPS = 3


class UnetrHead(nn.Module):
    """Distance decoder of micro-sam on an embedding.

    Parameters
    ----------
    config : UnetrConfig
        Channels of each level.
    in_chans : int
        Channels of the embedding.
    """

    def __init__(self, config: UnetrConfig, in_chans: int) -> None:
        super().__init__()
        first, second, third, last = config.features
        upsampler = TransposedUpsampler if config.transposed else BilinearUpsampler
        self.deconv1 = UpBlock(upsampler(in_chans, first), first)
        self.deconv2 = UpBlock(upsampler(first, second), second)
        self.deconv3 = UpBlock(upsampler(second, third), third)
        self.deconv4 = UpBlock(upsampler(third, last), last)
        self.base = ConvBlock(in_chans, first)
        self.decoder = Decoder(config.features, upsampler)
        self.deconv_out = upsampler(last, last)
        self.decoder_head = ConvBlock(2 * last, last)
        self.out_conv = nn.Conv2d(last, N_MAPS, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute the maps of embeddings.

        Parameters
        ----------
        embedding : (B, C, e, e) float tensor
            Embeddings of crops.

        Returns
        -------
        (B, 3, 16 * e, 16 * e) float tensor
            Logits of the three maps, in the pixels of the input frame.
        """
        chain = [self.deconv1(embedding)]  # (B, 512, 2e, 2e)
        chain.append(self.deconv2(chain[-1]))  # (B, 256, 4e, 4e)
        chain.append(self.deconv3(chain[-1]))  # (B, 128, 8e, 8e)
        fine = self.deconv4(chain[-1])  # (B, 64, 16e, 16e)
        x = self.decoder(self.base(embedding), chain)  # (B, 64, 8e, 8e)
        x = self.deconv_out(x)  # (B, 64, 16e, 16e)
        x = self.decoder_head(torch.cat([x, fine], dim=1))
        maps: Tensor = self.out_conv(x)
        return maps


class BilinearUpsampler(nn.Module):
    """Double the size by interpolation and change the width."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, out_chans, 2 * H, 2 * W)."""
        # The reference interpolates first. Both steps are linear and the weights of
        # the interpolation sum to one, so this is the same for a quarter of the work.
        return F.interpolate(
            self.conv(x), scale_factor=2.0, mode="bilinear", align_corners=False
        )


class TransposedUpsampler(nn.Module):
    """Double the size and change the width by one transposed convolution."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.block = nn.ConvTranspose2d(in_chans, out_chans, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, out_chans, 2 * H, 2 * W)."""
        y: Tensor = self.block(x)
        return y


Upsampler = type[BilinearUpsampler] | type[TransposedUpsampler]


class Decoder(nn.Module):
    """Three levels, each up by 2 and joined with the chain of up-sampling blocks.

    Parameters
    ----------
    features : tuple of int
        Channels before the first level and after each one.
    upsampler : type of Module
        What doubles the size at each level.
    """

    def __init__(self, features: tuple[int, ...], upsampler: Upsampler) -> None:
        super().__init__()
        widths = list(pairwise(features))
        self.samplers = nn.ModuleList(upsampler(*pair) for pair in widths)
        self.blocks = nn.ModuleList(ConvBlock(*pair) for pair in widths)

    def forward(self, x: Tensor, chain: list[Tensor]) -> Tensor:
        """Climb from (B, C, e, e) to (B, C_last, 8 * e, 8 * e).

        Parameters
        ----------
        x : (B, C, e, e) tensor
            Start of the decoder.
        chain : list of tensor
            Output of the up-sampling blocks, one a level, coarse to fine.

        Returns
        -------
        (B, C_last, 8 * e, 8 * e) tensor
            Output of the last level.
        """
        for sampler, block, beside in zip(
            self.samplers, self.blocks, chain, strict=True
        ):
            x = sampler(x)
            width = x.shape[1]
            middle = beside.narrow(1, (beside.shape[1] - width) // 2, width)
            x = block(torch.cat([x, middle], dim=1))
        return x


class Conv3x3(nn.Module):
    """A 3 x 3 convolution under the name that the checkpoints give it."""

    def __init__(self, chans: int) -> None:
        super().__init__()
        self.block = nn.Conv2d(chans, chans, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, chans, H, W) to the same shape."""
        y: Tensor = self.block(x)
        return y


class UpBlock(nn.Module):
    """Up-sampling, 3 x 3 convolution, batch normalisation, ReLU."""

    def __init__(self, upsampler: nn.Module, chans: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            upsampler,
            Conv3x3(chans),
            nn.BatchNorm2d(chans),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, chans, 2 * H, 2 * W)."""
        y: Tensor = self.block(x)
        return y


class ConvBlock(nn.Module):
    """Twice instance normalisation, 3 x 3 convolution, ReLU."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.InstanceNorm2d(in_chans),
            nn.Conv2d(in_chans, out_chans, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.InstanceNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, out_chans, H, W)."""
        y: Tensor = self.block(x)
        return y
