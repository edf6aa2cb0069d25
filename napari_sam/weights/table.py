"""The weights we know: where they are, how to prove them, what they may be used for.

Every file carries a checksum, without exception: a download that cannot be proved is
not offered. micro-sam publishes xxh128 sums only; those find damage but would not
stop an attacker, which is one more reason to never unpickle code (`load`).

Sources of the sums and sizes: docs/explain/models.md.
"""

import difflib
from dataclasses import dataclass

from napari_sam.errors import WeightsError


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of published weights.

    Parameters
    ----------
    name : str
        File name in the weights folder; files put there by hand have it, too.
    urls : tuple of str
        Addresses of the same bytes, tried in order.
    checksum : str
        ``"sha256:..."`` or ``"xxh128:..."``, as the publisher or the source gives it.
    size_bytes : int or None, default None
        Size of the file; None where no source states it.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """Facts about one set of weights.

    Parameters
    ----------
    name : str
        What `fetch` and `load_model` take.
    family : str
        Variant of the network, a key of `napari_sam.model.VARIANTS`.
    trained_for : str
        The images it was trained on, in a few words.
    licence : str
        As its authors state it.
    paper : str
        What to cite.
    weights : WeightFile or None
        The network; None for the weights that come with the package.
    decoder : WeightFile or None, default None
        The proposal head, where it is published as a file of its own.
    non_commercial : bool, default False
        Not to be used commercially, or not without asking the authors.
    """

    name: str
    family: str
    trained_for: str
    licence: str
    paper: str
    weights: WeightFile | None
    decoder: WeightFile | None = None
    non_commercial: bool = False

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """The files to download; none for the bundled weights."""
        return tuple(file for file in (self.weights, self.decoder) if file is not None)

    @property
    def is_bundled(self) -> bool:
        """Whether the weights come with the package."""
        return self.weights is None

    @property
    def has_proposals(self) -> bool:
        """Whether a proposal head comes with the network."""
        return self.is_bundled or self.decoder is not None

    @property
    def size_bytes(self) -> int | None:
        """Size of all files, in bytes; None where a size is not known."""
        sizes = [file.size_bytes for file in self.files]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the network in hexadecimal; None where another sum is known."""
        checksum = self.weights.checksum if self.weights else ""
        algorithm, _, digest = checksum.partition(":")
        return digest if algorithm == "sha256" else None

    @property
    def licence_notice(self) -> str:
        """One sentence to show before a download."""
        limit = "; NOT for commercial use" if self.non_commercial else ""
        return f"{self.name}: licence {self.licence}{limit}. Cite {self.paper}."


_SAM = "Kirillov et al. 2023, arXiv:2304.02643"
_MICRO_SAM = "Archit et al. 2025, doi:10.1038/s41592-024-02580-4"
_PATHO_SAM = "Griebel et al. 2025, arXiv:2502.00408"
_META = "https://dl.fbaipublicfiles.com/segment_anything"
_ZOO = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io"
_GWDG = "https://owncloud.gwdg.de/index.php/s"
_MOBILE_SAM = "https://github.com/ChaoningZhang/MobileSAM/raw"


def _sam(family: str, file: str, sha256: str, size_bytes: int) -> WeightSpec:
    return WeightSpec(
        name=family,
        family=family,
        trained_for="photographs (SA-1B)",
        licence="Apache-2.0",
        paper=_SAM,
        weights=WeightFile(file, (f"{_META}/{file}",), f"sha256:{sha256}", size_bytes),
    )


def _micro_sam(
    name: str, trained_for: str, entry: str, sum_network: str, sum_decoder: str
) -> WeightSpec:
    family = name[:5]
    base = f"{_ZOO}/{entry}/files/{family}"
    return WeightSpec(
        name=name,
        family=family,
        trained_for=trained_for,
        licence="CC-BY-4.0",
        paper=_MICRO_SAM,
        weights=WeightFile(f"{name}.pt", (f"{base}.pt",), f"xxh128:{sum_network}"),
        decoder=WeightFile(
            f"{name}_decoder.pt", (f"{base}_decoder.pt",), f"xxh128:{sum_decoder}"
        ),
    )


def _patho_sam(
    name: str, network: tuple[str, str], decoder: tuple[str, str]
) -> WeightSpec:
    return WeightSpec(
        name=name,
        family=name[:5],
        trained_for="H&E histology, nuclei",
        # Not a word about the weights from their authors, and PanNuke and MoNuSeg,
        # which they were trained on, exclude commercial use (CC-BY-NC-SA-4.0).
        licence="none stated",
        paper=_PATHO_SAM,
        weights=WeightFile(
            f"{name}.pt", (f"{_GWDG}/{network[0]}/download",), f"xxh128:{network[1]}"
        ),
        decoder=WeightFile(
            f"{name}_decoder.pt",
            (f"{_GWDG}/{decoder[0]}/download",),
            f"xxh128:{decoder[1]}",
        ),
        non_commercial=True,
    )


_CELLS = "light microscopy, cells and nuclei"
_ORGANELLES = "electron microscopy, mitochondria and nuclei"

_MODELS: tuple[WeightSpec, ...] = (
    WeightSpec(
        name="default",
        family="default",
        trained_for="microscopy of many kinds",
        licence="BSD-3-Clause",
        paper="this package",
        weights=None,
    ),
    _micro_sam(
        "vit_t_lm",
        _CELLS,
        "faithful-chicken/1.1",
        "72ec5074774761a6e5c05a08942f981e",
        "3e914a5f397b0312cdd36813031f8823",
    ),
    _micro_sam(
        "vit_b_lm",
        _CELLS,
        "diplomatic-bug/1.2",
        "fe9252a29f3f4ea53c15a06de471e186",
        "708b15ac620e235f90bb38612c4929ba",
    ),
    _micro_sam(
        "vit_l_lm",
        _CELLS,
        "idealistic-rat/1.2",
        "017f20677997d628426dec80a8018f9d",
        "2faeafa03819dfe03e7c46a44aaac64a",
    ),
    _micro_sam(
        "vit_t_em_organelles",
        _ORGANELLES,
        "greedy-whale/1",
        "253474720c497cce605e57c9b1d18fd9",
        "8f897c7bb93174a4d1638827c4dd6f44",
    ),
    _micro_sam(
        "vit_b_em_organelles",
        _ORGANELLES,
        "noisy-ox/1.2",
        "f3bf2ed83d691456bae2c3f9a05fb438",
        "bb6398956a6b0132c26b631c14f95ce2",
    ),
    _micro_sam(
        "vit_l_em_organelles",
        _ORGANELLES,
        "humorous-crab/1.2",
        "810b084b6e51acdbf760a993d8619f2d",
        "334877640bfdaaabce533e3252a17294",
    ),
    _patho_sam(
        "vit_b_histopathology",
        ("sBB4H8CTmIoBZsQ", "ffd1a2cd84570458b257bd95fdd8f974"),
        ("KO9AWqynI7SFOBj", "6a66194dcb6e36199cbee2214ecf7213"),
    ),
    _patho_sam(
        "vit_l_histopathology",
        ("IZgnn1cpBq2PHod", "b591833c89754271023e901281dee3f2"),
        ("oIs6VSmkOp7XrKF", "46aab7765d4400e039772d5a50b55c04"),
    ),
    WeightSpec(
        name="medsam",
        family="vit_b",
        trained_for="medical images; boxes only",
        licence="CC-BY-4.0",
        paper="Ma et al. 2024, doi:10.1038/s41467-024-44824-z",
        weights=WeightFile(
            "medsam_vit_b.pth",
            ("https://zenodo.org/records/10689643/files/medsam_vit_b.pth?download=1",),
            "sha256:34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
            375_049_145,
        ),
    ),
    WeightSpec(
        name="mobile_sam",
        family="vit_t",
        trained_for="photographs, distilled from vit_h",
        licence="Apache-2.0",
        paper="Zhang et al. 2023, arXiv:2306.14289",
        weights=WeightFile(
            "mobile_sam.pt",
            (
                f"{_MOBILE_SAM}/f706ad9c4eb7f219c00d9050e46328518ffb65d2"
                "/weights/mobile_sam.pt",
                f"{_MOBILE_SAM}/master/weights/mobile_sam.pt",
                f"{_GWDG}/TuDzuwVDHd1ZDnQ/download",
            ),
            "sha256:6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            40_728_226,
        ),
    ),
    WeightSpec(
        name="tiny_sam",
        family="vit_t",
        trained_for="photographs, distilled from vit_h",
        licence="Apache-2.0",
        paper="Shu et al. 2023, arXiv:2312.13789",
        weights=WeightFile(
            "tinysam.pth",
            ("https://huggingface.co/xinghaochen/tinysam/resolve/main/tinysam.pth",),
            "sha256:4b8edcf93af46e2a658ae455574de62873778a5cc3fd8e8adf094dcdfa957cf2",
        ),
    ),
    _sam(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    _sam(
        "vit_l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    _sam(
        "vit_h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
)


def list_models() -> tuple[WeightSpec, ...]:
    """Return all known weights, the bundled ones first.

    Examples
    --------
    >>> [spec.name for spec in list_models() if spec.is_bundled]
    ['default']
    """
    return _MODELS


def find_spec(name: str) -> WeightSpec:
    """Return the facts about the weights called ``name``.

    Raises
    ------
    WeightsError
        If there are none of that name.
    """
    for spec in _MODELS:
        if spec.name == name:
            return spec
    names = [spec.name for spec in _MODELS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise WeightsError(f"no weights are called {name!r}; {hint}use one of {names}")
