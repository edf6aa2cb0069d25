"""Files of parameters to networks and back.

Ours are safetensors, which cannot hold code. Files of others are pickles: they pass
through torch's unpickler for tensors only, and whatever else they ask for is refused.
There is no switch to allow it, because a switch is what an attacker would ask for.
"""

import hashlib
import json
import logging
import pickle
import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_sam.errors import DeviceError, InputError, WeightsError
from napari_sam.model.config import SamConfig
from napari_sam.model.sam import Sam
from napari_sam.settings import get_settings
from napari_sam.weights.device import pick_device, pick_precision
from napari_sam.weights.download import fetch
from napari_sam.weights.recognise import State, head_state, plain_state, recognise
from napari_sam.weights.table import find_spec, list_models

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
CONFIG_KEY = "config"  # of the metadata of our safetensors: SamConfig as JSON
_DECODER = "_decoder"

# What torch's unpickler raises for bytes that are no pickle.
_NO_PICKLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

# Parameters and buffers that no computation uses: some checkpoints have them, some
# not. The classifier of TinyViT, its table of positions, SAM's normalisation.
_IDLE = re.compile(
    r"image_encoder\.(norm_head|head)\.|.*\.attention_bias_idxs$|pixel_(mean|std)$"
)


def load_model(
    name_or_path: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> Sam:
    """Return a network with weights, ready to answer.

    Parameters
    ----------
    name_or_path : str or Path, optional
        A name of `list_models`, downloaded when it is used for the first time; or a
        file of your own: a ``.safetensors`` of this package, or a ``.pth`` or
        ``.pt`` in the layout of SAM, MobileSAM, MedSAM or micro-sam. A file
        ``NAME_decoder.pt`` beside ``NAME.pt`` is taken as its proposal head.
        Without it, the weights that come with the package.
    device : str, default "auto"
        See `pick_device`; "auto" asks the settings first.
    precision : str, default "auto"
        Of the encoder; see `pick_precision`; "auto" asks the settings first.

    Returns
    -------
    Sam
        In evaluation mode, float32 parameters, with ``name`` and ``weights_sha256``.

    Raises
    ------
    WeightsError
        If there is no such name or file, or it holds no SAM.
    InputError
        If it is neither, or the precision is unknown.
    DeviceError
        If the device is missing or too small.
    """
    settings = get_settings()
    target = pick_device(settings.device if device == "auto" else device)
    chosen = pick_precision(
        settings.precision if precision == "auto" else precision, target
    )
    if name_or_path is not None and not isinstance(name_or_path, str | Path):
        raise InputError(
            f"weights {name_or_path!r}; give a name of list_models(), or a path"
        )
    name, path, sha256 = _locate("default" if name_or_path is None else name_or_path)
    state, config = read_weights(path)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay
        model = Sam(config)
    _fill(model, state, path)
    try:
        model.to(target)
    except RuntimeError as error:
        raise DeviceError(
            f"the weights {name!r} do not fit on {target}: {error}; use device='cpu' "
            "or smaller weights"
        ) from error
    model.eval()
    model.name = name
    model.precision = chosen
    model.weights_sha256 = sha256 or _sha256(path)
    logger.info("%s (%s) on %s, %s", name, config.name, target, chosen)
    return model


def read_weights(path: Path) -> tuple[State, SamConfig]:
    """Return the parameters in a file and the sizes of their network.

    Parameters
    ----------
    path : Path
        A ``.safetensors``, ``.pth`` or ``.pt`` file.

    Returns
    -------
    state : dict of str to Tensor
        Under the names of `Sam`, as stored, on the CPU.
    config : SamConfig

    Raises
    ------
    WeightsError
        If the file is damaged, holds code, or is no SAM.
    """
    try:
        if path.suffix == SUFFIX:
            state, text = _read_safetensors(path)
            if text is not None:
                return state, SamConfig.from_dict(json.loads(text))
        else:
            state = plain_state(_read_pickle(path))
            beside = path.with_name(f"{path.stem}{_DECODER}{path.suffix}")
            if beside.is_file() and not any("proposal_head" in name for name in state):
                logger.info("%s is the proposal head of %s", beside.name, path.name)
                state |= head_state(_read_pickle(beside))
        return state, recognise(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: its config is damaged ({error})") from error


def save_weights(
    state: Mapping[str, Tensor],
    path: str | Path,
    config: SamConfig,
    *,
    dtype: torch.dtype = torch.float32,
    note: str = "",
) -> Path:
    """Write parameters, and the sizes of their network, to a safetensors file.

    Parameters
    ----------
    state : mapping of str to Tensor
        What `Sam.state_dict` returns.
    path : str or Path
        The file, ``.safetensors``; replaced in one step if it exists.
    config : SamConfig
        Sizes of the network, so that `load_model` need not guess.
    dtype : torch.dtype, default torch.float32
        Of floating-point parameters. What float16 cannot hold stays float32.
    note : str, optional
        A remark to keep in the file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WeightsError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise WeightsError(f"weights are written as {SUFFIX}, not as {path.name}")
    tensors = {name: _packed(tensor, dtype) for name, tensor in state.items()}
    facts = {CONFIG_KEY: json.dumps(config.to_dict()), "note": note}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            save_file(tensors, draft, metadata=facts)
            # safetensors writes for the owner only; give the file the usual rights.
            usual = Path(folder) / "usual"
            usual.touch()
            shutil.copymode(usual, draft)
            draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {error}") from error
    return path


def _packed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    packed = tensor.to(dtype)
    return packed if packed.isfinite().all() else tensor


def _locate(name_or_path: str | Path) -> tuple[str, Path, str | None]:
    """Return the name, the file, and its SHA-256 where it is known and proved."""
    path = Path(name_or_path)
    names = {spec.name for spec in list_models()}
    if isinstance(name_or_path, str) and name_or_path in names:
        spec = find_spec(name_or_path)
        return spec.name, fetch(spec), spec.sha256
    if path.is_file():
        return path.stem, path, None
    if path.suffix or len(path.parts) > 1:
        raise WeightsError(f"there is no file {path}")
    return _locate(find_spec(str(name_or_path)).name)  # says which names there are


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_safetensors(path: Path) -> tuple[State, str | None]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, (file.metadata() or {}).get(CONFIG_KEY)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"the file is damaged ({error})") from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(path),
        )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"refused: the file is damaged, or holds more than tensors, and loading "
            f"that could run code ({_reason(error)}); ask for a file with nothing but "
            "the state dict (for micro-sam: export_custom_sam_model)"
        ) from error
    except _NO_PICKLE as error:
        raise WeightsError(
            f"the file is damaged, or of another format ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Return the sentence of torch's long message that says what was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (telling or lines or [type(error).__name__])[0]


def _fill(model: Sam, state: State, path: Path) -> None:
    """Load parameters, all of them and no others, but for `_IDLE`."""
    own = model.state_dict()
    missing = [name for name in own if name not in state and not _IDLE.match(name)]
    strange = [name for name in state if name not in own and not _IDLE.match(name)]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    faults = {"missing": missing, "not known": strange, "of another shape": misshapen}
    found = [f"{_some(names)} {kind}" for kind, names in faults.items() if names]
    if found:
        raise WeightsError(
            f"{path} does not fit the network {model.config.name!r}: {'; '.join(found)}"
        )
    model.load_state_dict({name: state.get(name, own[name]) for name in own})


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{rest}"
