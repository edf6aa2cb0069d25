"""Files to networks: right ones load as they are, wrong ones are refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open

from napari_sam.errors import DeviceError, InputError, WeightsError
from napari_sam.model import VARIANTS, Sam, SamConfig
from napari_sam.model.config import TinyViTConfig, UnetrConfig
from napari_sam.weights import download, load, table
from napari_sam.weights.load import load_model, read_weights, save_weights
from napari_sam.weights.table import WeightFile, WeightSpec
from tests.weights.server import faulty_server

if TYPE_CHECKING:
    from pathlib import Path

TINY = VARIANTS["tiny"]


def network(config: SamConfig = TINY, seed: int = 1) -> Sam:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Sam(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def same_parameters(a: Sam, b: Sam) -> bool:
    own, other = a.state_dict(), b.state_dict()
    return own.keys() == other.keys() and all(
        torch.equal(own[name], other[name]) for name in own
    )


def load_cpu(path: Path) -> Sam:
    return load_model(path, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def model() -> Sam:
    return network()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Größe 細胞"
    path.mkdir()
    return path


def test_safetensors_round_trip(model: Sam, folder: Path) -> None:
    path = save_weights(model.state_dict(), folder / "mine.safetensors", model.config)
    loaded = load_cpu(path)
    assert same_parameters(loaded, model)
    assert loaded.config == model.config
    assert loaded.name == "mine"
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.precision, loaded.training) == ("float32", False)
    assert [p.name for p in folder.iterdir()] == ["mine.safetensors"]


def test_config_in_the_file_decides(model: Sam, folder: Path) -> None:
    # The shapes alone would say the name and normalisation of `tiny`.
    config = replace(model.config, name="mine", pixel_mean=(1.0, 2.0, 3.0))
    path = save_weights(model.state_dict(), folder / "w.safetensors", config, note="n")
    assert load_cpu(path).config == config
    with safe_open(path, "pt") as file:
        assert file.metadata()["note"] == "n"


def test_safetensors_of_others_are_recognised(model: Sam, folder: Path) -> None:
    path = save_weights(model.state_dict(), folder / "w.safetensors", model.config)
    tensors, _ = read_weights(path)
    load.save_file(tensors, path)
    assert load_cpu(path).config == model.config


def test_float16_on_disk_is_float32_in_memory(model: Sam, folder: Path) -> None:
    path = save_weights(
        model.state_dict(), folder / "w.safetensors", TINY, dtype=torch.float16
    )
    loaded = load_cpu(path)
    assert path.stat().st_size < 0.7 * sum(
        t.numel() * t.element_size() for t in model.state_dict().values()
    )
    for name, value in loaded.state_dict().items():
        expected = model.state_dict()[name]
        assert value.dtype == expected.dtype
        if value.is_floating_point():
            assert torch.equal(value, expected.half().float()), name


def test_what_float16_cannot_hold_stays_float32(model: Sam, folder: Path) -> None:
    state = dict(model.state_dict())
    name = "mask_decoder.iou_token.weight"
    state[name] = torch.full_like(state[name], 1e6)
    path = save_weights(state, folder / "w.safetensors", TINY, dtype=torch.float16)
    tensors, _ = read_weights(path)
    assert tensors[name].dtype == torch.float32
    assert torch.equal(load_cpu(path).state_dict()[name], state[name])


def test_weights_are_only_written_as_safetensors(model: Sam, folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"written as \.safetensors, not as w\.pth"):
        save_weights(model.state_dict(), folder / "w.pth", TINY)


def test_folder_that_cannot_be_written(model: Sam, folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot write"):
        save_weights(
            model.state_dict(), folder / "file" / "w.safetensors", model.config
        )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_pickles_of_tensors(
    model: Sam, folder: Path, suffix: str, zipped: bool
) -> None:
    path = folder / f"w{suffix}"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    loaded = load_cpu(path)
    assert same_parameters(loaded, model)
    assert loaded.config == TINY


def test_loaded_network_answers_as_the_saved_one(model: Sam, folder: Path) -> None:
    path = folder / "w.pth"
    torch.save({"module." + k: v for k, v in model.state_dict().items()}, path)
    image = torch.rand(1, 3, 128, 128)
    points, labels = torch.tensor([[[40.0, 60.0]]]), torch.tensor([[1]])
    answers = []
    with torch.no_grad():
        for each in (model, load_cpu(path)):
            embedding = each.encode(image)
            answers.append(each.decode(embedding, points=points, labels=labels))
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])


def split(model: Sam) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Parameters as micro-sam publishes them: network and decoder."""
    head = "proposal_head."
    state = model.state_dict()
    return (
        OrderedDict((k, v) for k, v in state.items() if not k.startswith(head)),
        OrderedDict(
            (k.removeprefix(head), v) for k, v in state.items() if k.startswith(head)
        ),
    )


@pytest.fixture(scope="module")
def micro_sam() -> Sam:
    return network(replace(TINY, proposal=UnetrConfig((16, 8, 8, 8))))


def test_checkpoint_of_micro_sam_with_decoder(micro_sam: Sam, folder: Path) -> None:
    weights, decoder = split(micro_sam)
    content = {
        "model_state": OrderedDict((f"sam.{k}", v) for k, v in weights.items()),
        "decoder_state": decoder,
        "iteration": 25000,
        "best_metric": 0.1,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-5}]},
    }
    torch.save(content, folder / "best.pt")
    assert same_parameters(load_cpu(folder / "best.pt"), micro_sam)


def test_decoder_in_a_file_beside(micro_sam: Sam, folder: Path) -> None:
    weights, decoder = split(micro_sam)
    torch.save(weights, folder / "vit_b_lm.pt")
    assert load_cpu(folder / "vit_b_lm.pt").proposal_head is None
    torch.save(decoder, folder / "vit_b_lm_decoder.pt")
    assert same_parameters(load_cpu(folder / "vit_b_lm.pt"), micro_sam)


def test_decoder_alone_is_no_network(micro_sam: Sam, folder: Path) -> None:
    torch.save(split(micro_sam)[1], folder / "decoder.pt")
    with pytest.raises(WeightsError, match="not the parameters of a SAM"):
        load_cpu(folder / "decoder.pt")


def test_unused_classifier_of_tiny_vit_may_be_there_or_not(folder: Path) -> None:
    encoder = TinyViTConfig(
        embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)
    )
    tiny_vit = network(SamConfig("custom", encoder, embed_dim=32))
    state = dict(tiny_vit.state_dict())
    for name in list(state):
        if ".head." in name or ".norm_head." in name:
            del state[name]
    state["image_encoder.layers.1.blocks.0.attn.attention_bias_idxs"] = torch.ones(1)
    state["pixel_mean"] = torch.zeros(3, 1, 1)
    torch.save(state, folder / "w.pt")
    loaded = load_cpu(folder / "w.pt").state_dict()
    kept = [name for name in state if name in loaded]
    assert len(kept) == len(state) - 2
    assert all(torch.equal(loaded[name], state[name]) for name in kept)


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.command = f'echo owned > "{target}"'

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_attack_would_work_on_a_careless_loader(tmp_path: Path) -> None:
    # Or the next tests would prove nothing.
    target = tmp_path / "owned"
    path = tmp_path / "w.pth"
    torch.save({"image_encoder.x": Attack(target)}, path)
    torch.load(path, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "decoder"])
def test_malicious_pickle_is_refused(model: Sam, folder: Path, form: str) -> None:
    target = folder / "owned"
    path = folder / "w.pth"
    content = {**model.state_dict(), "image_encoder.x": Attack(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"image_encoder.x": Attack(target)}, protocol=2))
    elif form == "decoder":
        bare = {k: v for k, v in model.state_dict().items() if "proposal" not in k}
        torch.save(bare, path)
        torch.save({"out_conv.weight": Attack(target)}, folder / "w_decoder.pth")
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"could run code .*system"):
        load_cpu(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>log in</html>", b"hello, I am text", b"}K\x00.", None]
)
def test_damaged_files(
    model: Sam, folder: Path, name: str, content: bytes | None
) -> None:
    path = folder / name
    if content is None:  # cut off
        if path.suffix == ".pth":
            torch.save(model.state_dict(), path)
        else:
            save_weights(model.state_dict(), path, TINY)
        content = path.read_bytes()[:-2000]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}: .*damaged"):
        load_cpu(path)


def test_damaged_config(model: Sam, folder: Path) -> None:
    path = folder / "w.safetensors"
    for config in ("no json", json.dumps({"encoder": {"kind": "Nothing"}}), "[]"):
        load.save_file(dict(model.state_dict()), path, {"config": config})
        with pytest.raises(WeightsError, match="its config is damaged"):
            load_cpu(path)


def test_missing_unknown_and_misshapen_parameters_are_named(
    model: Sam, folder: Path
) -> None:
    state = dict(model.state_dict())
    del state["mask_decoder.iou_token.weight"]
    state["mask_decoder.hf_token.weight"] = torch.zeros(1)
    state["mask_decoder.mask_tokens.weight"] = torch.zeros(5, 32)
    save_weights(state, folder / "w.safetensors", TINY)
    with pytest.raises(WeightsError) as caught:
        load_cpu(folder / "w.safetensors")
    message = str(caught.value)
    assert "does not fit the network 'tiny'" in message
    assert "mask_decoder.iou_token.weight missing" in message
    assert "mask_decoder.hf_token.weight not known" in message
    assert "mask_tokens.weight (5, 32) instead of (4, 32) of another shape" in message


def test_long_lists_of_names_are_cut(model: Sam, folder: Path) -> None:
    state = {k: v for k, v in model.state_dict().items() if "transformer" not in k}
    save_weights(state, folder / "w.safetensors", TINY)
    with pytest.raises(WeightsError, match=r"and \d\d more missing"):
        load_cpu(folder / "w.safetensors")


def test_paths_and_names_that_are_none(folder: Path) -> None:
    with pytest.raises(WeightsError, match="there is no file"):
        load_cpu(folder / "nothing.pth")
    with pytest.raises(WeightsError, match=r"there is no file nothing\.pth"):
        load_model("nothing.pth")
    with pytest.raises(WeightsError, match="no weights are called 'vit_x'"):
        load_model("vit_x")
    with pytest.raises(InputError, match="give a name of list_models"):
        load_model(3)  # type: ignore[arg-type]


def test_loading_leaves_the_callers_random_numbers(model: Sam, folder: Path) -> None:
    path = save_weights(model.state_dict(), folder / "w.safetensors", model.config)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_cpu(path)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_bundled_weights_are_the_default(
    model: Sam, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_weights(
        model.state_dict(), folder / "default.safetensors", TINY, dtype=torch.float16
    )
    monkeypatch.setattr(download, "BUNDLED", path)
    loaded = load_model(device="cpu")
    assert loaded.name == "default"
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same_parameters(loaded, load_model("default", device="cpu"))


def test_name_is_downloaded_proved_and_loaded(
    micro_sam: Sam, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_server() as server:
        files = []
        for state, name in zip(split(micro_sam), ("w.pt", "w_decoder.pt"), strict=True):
            torch.save(state, folder / name)
            server.files[name] = (folder / name).read_bytes()
            sha256 = hashlib.sha256(server.files[name]).hexdigest()
            url = server.url("ranges", name)
            files.append(WeightFile(name, (url,), f"sha256:{sha256}"))
            (folder / name).unlink()
        spec = WeightSpec("cells", "tiny", "cells", "CC0-1.0", "nobody", *files)
        monkeypatch.setattr(table, "_MODELS", (spec,))
        settings = download.get_settings().model_copy(update={"weights_dir": folder})
        monkeypatch.setattr(download, "get_settings", lambda: settings)
        loaded = load_model("cells", device="cpu")
    assert same_parameters(loaded, micro_sam)
    assert loaded.name == "cells"
    assert loaded.weights_sha256 == spec.sha256


def test_device_and_precision(model: Sam, folder: Path) -> None:
    path = save_weights(model.state_dict(), folder / "w.safetensors", TINY)
    assert load_model(path, device="cpu", precision="bfloat16").precision == "bfloat16"
    with pytest.raises(DeviceError, match="'cuda:99' cannot be used"):
        load_model(path, device="cuda:99")
    with pytest.raises(InputError, match="precision 'float16' is unknown"):
        load_model(path, device="cpu", precision="float16")


def test_auto_asks_the_settings_first(
    model: Sam, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_weights(model.state_dict(), folder / "w.safetensors", TINY)
    wish = {"device": "cpu", "precision": "bfloat16"}
    settings = load.get_settings().model_copy(update=wish)
    monkeypatch.setattr(load, "get_settings", lambda: settings)
    loaded = load_model(path)
    assert (loaded.device.type, loaded.precision) == ("cpu", "bfloat16")
    assert load_model(path, precision="float32").precision == "float32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(model: Sam, folder: Path) -> None:
    path = save_weights(model.state_dict(), folder / "w.safetensors", TINY)
    loaded = load_model(path, device="cuda")
    assert loaded.device.type == "cuda"
    assert same_parameters(loaded.cpu(), model)


def test_others_may_read_saved_weights(tmp_path, tiny_sam):
    path = save_weights(
        tiny_sam.state_dict(), tmp_path / "w.safetensors", tiny_sam.config
    )
    usual = tmp_path / "usual"
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode
