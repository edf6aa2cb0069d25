"""Sam: image encoder, prompt encoder, mask decoder and proposal head, joined.

The network answers in its own frame: a square input of `SamConfig.image_size` pixels,
coordinates (x, y), padding right and below. Everything that knows about planes, crops
or (y, x) lives above `model/`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.errors import InputError
from napari_sam.model.affinity import Details, Seeds, read_votes
from napari_sam.model.config import (
    ConvConfig,
    EncoderConfig,
    HeadConfig,
    ProposalConfig,
    SamConfig,
    TinyViTConfig,
    ViTConfig,
)
from napari_sam.model.conv_encoder import CentreCode, ConvEncoder
from napari_sam.model.image_encoder import ImageEncoderViT
from napari_sam.model.mask_decoder import (
    MaskDecoder,
    PreparedEmbedding,
    places_first,
)
from napari_sam.model.prompt_encoder import PromptEncoder
from napari_sam.model.proposal_head import ProposalHead
from napari_sam.model.tiny_vit import TinyViT
from napari_sam.model.unetr import UnetrHead

# The decoder's masks by the value of ``multimask``.
ANSWERS = {False: range(1), True: range(1, 4), None: range(4)}


class Sam(nn.Module):
    """Segment Anything Model.

    Parameters
    ----------
    config : SamConfig
        All sizes.

    Attributes
    ----------
    name : str
        Name of the weights, for people; the config's name until weights are loaded.
    weights_sha256 : str
        Identity of the loaded weights; empty for random ones.
    precision : str
        ``"float32"``, or ``"bfloat16"`` to compute in bfloat16: the encoder, and on a
        CPU what the mask decoder of published weights does with places.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.name = config.name
        self.weights_sha256 = ""
        self.precision = "float32"
        self.image_encoder = _build_encoder(config.encoder, config)
        self.prompt_encoder = PromptEncoder(
            config.embed_dim,
            config.image_size,
            config.mask_in_chans,
            config.finest_position,
        )
        self.mask_decoder = MaskDecoder(
            config.embed_dim,
            config.decoder_depth,
            config.decoder_heads,
            config.decoder_mlp_dim,
            has_votes=_has_votes(config.proposal),
        )
        self.proposal_head = _build_head(config.proposal, config)
        self.detail = _build_detail(config)
        for name, values in (
            ("pixel_mean", config.pixel_mean),
            ("pixel_std", config.pixel_std),
        ):
            # Not in the state dict: the published checkpoints do not carry them.
            self.register_buffer(
                name, torch.tensor(values).view(3, 1, 1), persistent=False
            )

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.pixel_mean.device

    @property
    def has_votes(self) -> bool:
        """Whether the weights vote for centres (`napari_sam.model.affinity`)."""
        return _has_votes(self.config.proposal)

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalise images and pad them, right and below, to the input frame.

        The published encoders were trained with zeros there; for the convolutional
        one the last pixels are repeated.

        Parameters
        ----------
        images : (B, 3, h, w) tensor, uint8 or floating point, 0 to 255
            Red, green, blue; neither side above the frame's.

        Returns
        -------
        (B, 3, S, S) float32 tensor

        Raises
        ------
        InputError
            If an image is larger than the frame or has not three channels.
        """
        size = self.config.image_size
        height, width = images.shape[-2:]
        if images.ndim != 4 or images.shape[1] != 3 or max(height, width) > size:
            raise InputError(
                f"the encoder takes (B, 3, h, w) with sides up to {size} px, got "
                f"{tuple(images.shape)}; cut a larger image into crops"
            )
        if self.device.type == "cuda" and images.device.type == "cpu":
            # from pinned memory the host need not wait
            images = images.pin_memory().to(self.device, non_blocking=True)
        # one array of a frame's size instead of three: they cost more than the sums
        x = (images.to(self.device) - self.pixel_mean).div_(self.pixel_std).float()
        if (height, width) == (size, size):
            return x
        # Grey beyond a dark edge would be something to see for an encoder that was
        # trained on windows without padding.
        mode = (
            "replicate" if isinstance(self.config.encoder, ConvConfig) else "constant"
        )
        return F.pad(x, (0, size - width, 0, size - height), mode)

    def encode(self, x: Tensor) -> Tensor:
        """Encode normalised crops.

        Parameters
        ----------
        x : (B, 3, S, S) tensor
            From `preprocess`.

        Returns
        -------
        (B, C', S / 16, S / 16) float32 tensor
            Embeddings; of our own network without where in the frame things are, which
            `place` adds. What takes an embedding takes it before and after that.
        """
        encoder = self.image_encoder
        look = encoder.look if isinstance(encoder, ConvEncoder) else encoder
        with self._encoding(x):
            embedding: Tensor = look(x)
        return embedding.float()

    def place(self, embedding: Tensor, origin: tuple[int, int] = (0, 0)) -> Tensor:
        """Say of embeddings, or of equal parts of them, where in the frame they are.

        Parameters
        ----------
        embedding : (B, C', H, W) float32 tensor
        origin : tuple of int, default (0, 0)
            Row and column in the frame, in cells.

        Returns
        -------
        (B, C, H, W) float32 tensor
            The same if it was placed already, as those of published networks are.
        """
        encoder = self.image_encoder
        if embedding.shape[1] == self.config.embed_dim:
            return embedding
        assert isinstance(encoder, ConvEncoder)  # noqa: S101 - for the type checker
        with self._encoding(embedding):
            placed = encoder.place(embedding, origin)
        return placed.float()

    @property
    def can_place(self) -> bool:
        """Whether embeddings know nothing of the frame before `place`."""
        return isinstance(self.image_encoder, ConvEncoder)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Of what `encode` returns for one crop, (C', S / 16, S / 16)."""
        more = CentreCode.CHANNELS if self.can_place else 0
        size = self.config.embedding_size
        return self.config.embed_dim + more, size, size

    def _encoding(self, x: Tensor) -> torch.autocast:
        is_low = self.precision == "bfloat16"
        return torch.autocast(x.device.type, torch.bfloat16, enabled=is_low)

    def prepare(
        self,
        embedding: Tensor,
        *,
        masks: Tensor | None = None,
        origin: tuple[int, int] = (0, 0),
        details: Details | None = None,
        is_shared: bool = True,
    ) -> PreparedEmbedding:
        """Compute what all prompts on an embedding share, once for many `decode`.

        Parameters
        ----------
        embedding : (B, C', H, W) float32 tensor
        masks : (N, 1, 4 * H, 4 * W) float32 tensor, optional
            Logits of earlier answers.
        origin : tuple of int, default (0, 0)
            Row and column of the embedding's first cell in the frame, for an
            embedding of part of a frame, as in training.
        details : Details, optional
            From `details`; computed if not given.
        is_shared : bool, default True
            Whether each embedding is asked by more than one prompt; without influence
            on the answers.

        Returns
        -------
        PreparedEmbedding
        """
        embedding = self.place(embedding, origin)
        height, width = embedding.shape[-2:]
        position = self.prompt_encoder.dense_pe()
        position = position[..., origin[0] :, origin[1] :][..., :height, :width]
        dense = self.prompt_encoder.dense(masks, (height, width))
        details = self.details(embedding, origin) if details is None else details
        return self.mask_decoder.prepare(
            embedding + dense,
            position,
            details,
            self._places_dtype(),
            is_shared=is_shared,
        )

    def details(
        self,
        embedding: Tensor,
        origin: tuple[int, int] = (0, 0),
        features: Tensor | None = None,
    ) -> Details | None:
        """Return what the proposal head knows for the mask decoder, if it does.

        Parameters
        ----------
        embedding : (B, C', H, W) float32 tensor
        origin
            As in `prepare`.
        features : (B, C'', 4 * H, 4 * W) tensor, optional
            From `ProposalHead.features`; computed if not given.
        """
        head = self.proposal_head
        if self.detail is None or not isinstance(head, ProposalHead):
            return None
        if features is None:
            features = head.features(self.place(embedding, origin))
        edges = places_first(self.detail(features)).to(self._places_dtype())
        if head.votes is None:
            return Details(edges)
        votes = read_votes(head.votes(features), head.maps(features)[:, :1], origin)
        return Details(edges, votes)

    def decode(  # noqa: PLR0913 - the kinds of prompts, and what is wanted
        self,
        embedding: Tensor | PreparedEmbedding,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool | None = True,
        worth: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answer N prompts.

        Parameters
        ----------
        embedding : (1 or N, C', H, W) float32 tensor or PreparedEmbedding
            One for all prompts, or one each; from `prepare` where several calls ask
            about the same one.
        points : (N, P, 2) float32 tensor, optional
            Input frame, (x, y), pixels.
        labels : (N, P) tensor, optional
            1 positive, 0 negative, -1 not a point (padding).
        boxes : (N, 4) float32 tensor, optional
            Input frame, (x0, y0, x1, y1), pixels.
        masks : (N, 1, 4 * H, 4 * W) float32 tensor, optional
            Logits of an earlier answer.
        multimask : bool or None, default True
            Three masks instead of one; None returns all four, the single one first.
        worth : float, optional
            Prompts of which no mask has a higher predicted IoU are not drawn, which
            saves half of the time for them; their logits are minus infinity. Without
            effect on weights whose predicted IoU depends on what is drawn.

        Returns
        -------
        logits : (N, K, 4 * H, 4 * W) float32 tensor
            A pixel belongs to the mask where its logit is above 0.
        predicted_iou : (N, K) float32 tensor
            The model's own estimate of each mask's IoU.

        Raises
        ------
        InputError
            If there is neither a point nor a box.
        """
        if points is None and boxes is None:
            raise InputError(
                "no prompt was given; give points with labels, or boxes "
                "(a mask alone is not enough: add a point inside it)"
            )
        if isinstance(embedding, Tensor):
            embedding = self.prepare(embedding, masks=masks)
        elif masks is not None:
            raise InputError(
                "a mask prompt was given with an embedding that was prepared without "
                "it; give it to prepare, or give the embedding itself"
            )
        sparse = self.prompt_encoder.sparse(points, labels, boxes)
        logits, predicted_iou = self.mask_decoder(
            embedding,
            sparse,
            answers=ANSWERS[multimask],
            seeds=Seeds.of(points, labels, boxes),
            worth=worth,
        )
        return logits.float(), predicted_iou.float()

    def _places_dtype(self) -> torch.dtype:
        """Return the type in which the mask decoder keeps places.

        A GPU waits for its host there and not for products. A training says itself.
        Weights with votes are asked in small windows, where bfloat16 saves no time, and
        one object in ten would be another one.
        """
        is_low = self.precision == "bfloat16" and not torch.is_grad_enabled()
        is_low = is_low and self.mask_decoder.affinity is None
        is_low = is_low or torch.is_autocast_enabled("cpu")
        on_cpu = self.device.type == "cpu"
        return torch.bfloat16 if is_low and on_cpu else torch.float32

    def propose(self, embedding: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the proposal head's maps, each 0 to 1.

        Parameters
        ----------
        embedding : (B, C', e, e) float32 tensor
        features : (B, C'', 4 * e, 4 * e) tensor, optional
            As in `details`.

        Returns
        -------
        (B, 3, 4 * e, 4 * e) float32 tensor
            Foreground probability, centre distance, boundary distance, as defined
            in `napari_sam.model.proposal_head`.

        Raises
        ------
        InputError
            If the weights have no proposal head.
        """
        if self.proposal_head is None:
            raise InputError(
                f"the weights {self.name!r} have no proposal head; use the mode "
                "'grid', or weights with one (the default model has)"
            )
        head = self.proposal_head
        if features is not None and isinstance(head, ProposalHead):
            maps: Tensor = head.maps(features)
        else:
            maps = head(self.place(embedding))
        # A head may answer in finer cells than the decoder's; the mean keeps 0 to 1.
        cells = (4 * embedding.shape[-2], 4 * embedding.shape[-1])
        return F.adaptive_avg_pool2d(torch.sigmoid(maps.float()), cells)

    def upscale(
        self, logits: Tensor, input_size: tuple[int, int], output_size: tuple[int, int]
    ) -> Tensor:
        """Bring logits to the pixels of the image.

        Parameters
        ----------
        logits : (N, K, S / 4, S / 4) tensor
        input_size : tuple of int
            Height and width of the image inside the frame, in pixels.
        output_size : tuple of int
            Height and width wanted.

        Returns
        -------
        (N, K, height, width) tensor
            Bilinear twice, as in the reference: to the frame, then without its
            padding to ``output_size``.
        """
        size = (self.config.image_size,) * 2
        frame = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        frame = frame[..., : input_size[0], : input_size[1]]
        if tuple(input_size) == tuple(output_size):
            return frame
        return F.interpolate(
            frame, tuple(output_size), mode="bilinear", align_corners=False
        )


def _build_encoder(encoder: EncoderConfig, config: SamConfig) -> nn.Module:
    match encoder:
        case ViTConfig():
            return ImageEncoderViT(encoder, config.image_size, config.embed_dim)
        case TinyViTConfig():
            return TinyViT(encoder, config.embed_dim)
        case ConvConfig():
            return ConvEncoder(encoder, config.embed_dim)


def _build_head(head: HeadConfig | None, config: SamConfig) -> nn.Module | None:
    if head is None:
        return None
    if isinstance(head, ProposalConfig):
        return ProposalHead(head, config.embed_dim)
    return UnetrHead(head, config.embed_dim)


def _has_votes(head: HeadConfig | None) -> bool:
    return isinstance(head, ProposalConfig) and head.has_votes


def _build_detail(config: SamConfig) -> nn.Conv2d | None:
    head = config.proposal
    if not (isinstance(head, ProposalConfig) and head.has_detail):
        return None
    detail = nn.Conv2d(head.widths[-1], config.embed_dim // 8, kernel_size=1)
    with torch.no_grad():  # a training may begin without it
        for parameter in detail.parameters():
            parameter.zero_()
    return detail


def channels_last(model: Sam) -> Sam:
    """Lay out the weights so that convolutions on a CPU are fastest; in place."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(
                memory_format=torch.channels_last
            )
    return model
