"""The loop: it learns, it resumes where it was, and it says what is wrong."""

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_sam.engine.jobs import run
from napari_sam.errors import FileError, FormatError, InputError
from napari_sam.model import VARIANTS, Sam
from napari_sam.training.config import FINE_TUNING, TrainConfig, read_config
from napari_sam.training.data import Batch, Batches
from napari_sam.training.loop import _start, schedule, train, train_step
from napari_sam.training.rounds import PromptRounds
from napari_sam.weights.load import load_model


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        output=tmp_path / "run",
        model="tiny",
        steps=6,
        warmup_steps=1,
        decay_steps=2,
        warm_steps=2,
        windows=((128, 2),),
        window_shares=(1.0,),
        objects_per_window=2,
        scene_share=1.0,
        precision="float32",
        frame=128,
        workers=0,
    )


def test_a_training_that_was_stopped_ends_like_one_that_was_not(config, tmp_path):
    whole = run(train(config))
    parts = dataclasses.replace(
        config, output=tmp_path / "parts", checkpoint_every_s=0.0
    )
    job = train(parts)
    for _ in range(3):
        step = next(job)
    assert (step.done, step.total) == (3, 6)
    job.close()
    resumed = run(train(parts))
    for name, value in load_file(whole).items():
        torch.testing.assert_close(load_file(resumed)[name], value, rtol=0, atol=1e-6)
    with (parts.output / "curves.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("123456")


def test_only_the_parts_that_are_named_change(config):
    parts = ("mask_decoder.iou_prediction_head", "proposal_head.maps")
    before = {n: v.clone() for n, v in _start(config).model.state_dict().items()}
    after = load_file(run(train(dataclasses.replace(config, only=parts))))
    for name, value in after.items():
        is_same = torch.equal(value, before[name])
        assert is_same != name.startswith(parts), name
    with pytest.raises(InputError, match=r"mask_decoder\.transformer"):
        run(train(dataclasses.replace(config, only=("decoder",))))


def test_the_weights_of_a_training_can_be_loaded(config):
    path = run(train(config))
    model = load_model(path, device="cpu")
    assert model.config == VARIANTS["tiny"]
    stored = torch.load(config.output / "state.pt", weights_only=True)
    torch.testing.assert_close(
        model.mask_decoder.iou_token.weight,
        stored["average"]["mask_decoder.iou_token.weight"],
    )


def test_a_few_steps_on_one_batch_lower_the_loss(config):
    config = dataclasses.replace(
        config, steps=60, decay_steps=1, learning_rate=3e-3, rounds=(1.0,)
    )
    batch = Batches([], config)[0]
    state = _start(config)
    losses = [train_step(state, batch, config)["dice"] for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_learning_rates_rise_stay_and_fall_to_zero(config):
    config = dataclasses.replace(config, steps=100, warmup_steps=10, decay_steps=20)
    shares = [schedule(step, config) for step in range(101)]
    assert shares[4] == pytest.approx(0.5)
    assert set(shares[9:81]) == {1.0}
    assert shares[90] == pytest.approx(0.5 * (1 - math.cos(math.pi / 2)))
    assert shares[100] == pytest.approx(0)


@pytest.mark.parametrize("steps", [3, 100, 2000, 20_000])
@pytest.mark.parametrize("start_from", [None, "default"])
def test_any_number_of_steps_will_do(steps, start_from):
    config = read_config(steps=steps, start_from=start_from)
    assert schedule(steps, config) == pytest.approx(0)
    if steps == 20_000 and start_from is None:
        assert config == TrainConfig(output=Path("runs/train"))


def test_a_training_from_weights_has_defaults_of_its_own():
    config = read_config(start_from="default", learning_rate=3e-5)
    for name, value in FINE_TUNING.items():
        if name != "learning_rate":
            assert getattr(config, name) == value, name
    assert config.learning_rate == 3e-5
    assert read_config().steps == TrainConfig(output=Path()).steps


def test_a_training_that_is_done_says_so(config, caplog):
    weights = load_file(run(train(config)))
    with caplog.at_level("WARNING", "napari_sam"):
        again = load_file(run(train(config)))
    assert "nothing to train" in caplog.text
    for name, value in weights.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_a_training_leaves_the_callers_random_numbers(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _start(config)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_each_optimiser_has_its_own_rate(config):
    config = dataclasses.replace(
        config, warmup_steps=1, decay_steps=1, learning_rate=0.003, matrix_rate=0.05
    )
    state = _start(config)
    train_step(state, Batches([], config)[0], config)
    adam, muon = state.optimizers
    assert {group["lr"] for group in adam.param_groups} == {0.003}
    assert {group["lr"] for group in muon.param_groups} == {0.05}


def test_matrices_are_for_muon_and_every_weight_has_one_optimiser(config):
    state = _start(config)
    weights = [
        [id(p) for group in optimizer.param_groups for p in group["params"]]
        for optimizer in state.optimizers
    ]
    assert sorted(weights[0] + weights[1]) == sorted(
        id(p) for p in state.model.parameters()
    )
    decoder = state.model.mask_decoder
    assert id(decoder.transformer.layers[0].mlp.lin1.weight) in weights[1]
    assert id(decoder.mask_tokens.weight) in weights[0]
    assert id(state.model.proposal_head.maps.weight) in weights[0]


def test_dense_steps_leave_the_mask_decoder_alone(config):
    config = dataclasses.replace(config, dense_steps=1, weight_decay=0.0)
    state = _start(config)
    before = {name: p.clone() for name, p in state.model.named_parameters()}
    batches = Batches([], config)
    curves = train_step(state, batches[0], config)
    changed = {n for n, p in state.model.named_parameters() if not p.equal(before[n])}
    assert not any(name.startswith(("mask_decoder", "prompt")) for name in changed)
    assert "proposal_head.maps.weight" in changed
    assert "dice" not in curves
    assert "dice" in train_step(state, batches[1], config)


def test_eleven_rounds_add_a_point_in_all_but_two(config):
    model = Sam(VARIANTS["tiny"])
    masks = torch.zeros(4, 64, 64)
    masks[:, 10:30, 20:50] = 1
    batch = Batch(
        images=torch.zeros(1, 3, 128, 128, dtype=torch.uint8),
        maps=torch.zeros(1, 3, 32, 32),
        centres=torch.full((1, 2, 16, 16), torch.nan),
        votes=torch.full((1, 3, 32, 32), torch.nan),
        is_complete=torch.ones(1),
        masks=masks,
        owner=torch.zeros(4, dtype=torch.int64),
        origin=(0, 0),
    )
    embedding = torch.randn(1, 32, 8, 8)
    rounds = PromptRounds(model, embedding, batch, torch.Generator().manual_seed(0))
    parts = rounds.losses(11)
    # Ten rounds follow the first; two of them have no new point.
    assert rounds.points.shape == (4, 1 + 8, 2)
    # The first round has a loss for points and one for boxes.
    assert len(parts) == 12
    assert all(torch.isfinite(part.total) for part in parts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"windows": ((100, 2),)}, "multiples of 32"),
        ({"rounds": (0.5, 0.2)}, "sum to 1"),
        ({"steps": 2}, "fewer"),
        ({"precision": "float16"}, "bfloat16"),
        ({"objects_per_window": 0}, "objects_per_window 0; give a number of at least"),
        ({"learning_rate": -1e-4}, "learning_rate"),
        ({"scene_share": 3.0}, "scene_share 3.0; give a share"),
        ({"diameters": (50.0, 10.0)}, "the smaller one first"),
    ],
)
def test_impossible_settings_are_refused(config, change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(config, **change)


def test_an_encoder_with_positions_needs_whole_frames(config):
    small = dataclasses.replace(config, windows=((64, 2),))
    with pytest.raises(InputError, match="whole frames"):
        next(train(small))


def test_dense_steps_need_something_dense(config):
    bare = dataclasses.replace(config, model="vit_t", frame=1024, dense_steps=1)
    bare = dataclasses.replace(bare, windows=((1024, 1),))
    with pytest.raises(InputError, match="no proposal head"):
        next(train(bare))


def test_configuration_comes_from_yaml_and_names_what_it_does_not_know(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("steps: 9000\nwindows: [[256, 8]]\nwindow_shares: [1.0]\n")
    config = read_config(path, output=tmp_path / "out")
    assert config.windows == ((256, 8),)
    assert config.steps == 9000
    assert config.output == tmp_path / "out"
    path.write_text("step: 9000\n")
    with pytest.raises(InputError, match=r"\['step'\]"):
        read_config(path)


def test_values_get_the_type_of_their_setting(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(  # YAML takes a number without a point for text
        "learning_rate: 1e-4\ndata: one\nonly: mask_decoder\n"
        "group_weights: {nuclei: 3}\n"
    )
    config = read_config(path)
    assert config.learning_rate == 0.0001
    assert config.data == (Path("one"),)
    assert config.only == ("mask_decoder",)
    assert config.group_weights == {"nuclei": 3.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": "many"}, "setting steps = 'many': .*valid integer"),
        ({"windows": 256}, "setting windows = 256: .*valid tuple"),
        ({"rounds": 1.0}, "setting rounds = 1.0"),
        ({"group_weights": 3}, "setting group_weights = 3"),
        ({"data": 5}, "setting data = 5"),
    ],
)
def test_values_of_another_type_are_named(change, words):
    with pytest.raises(InputError, match=words):
        read_config(**change)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(": [")
    with pytest.raises(FormatError, match=r"recipe\.yaml is no YAML"):
        read_config(path)


def test_an_unknown_network_is_told_the_known_ones(config):
    with pytest.raises(InputError, match=r"no model 'vit_x'; choose from .*'vit_b'"):
        next(train(dataclasses.replace(config, model="vit_x")))


def test_a_training_of_another_network_is_not_gone_on_with(config):
    config.output.mkdir(parents=True, exist_ok=True)
    strange = {"model": {"weight": torch.zeros(1)}}
    torch.save(strange, config.output / "state.pt")
    with pytest.raises(InputError, match="another network"):
        next(train(config))


def test_an_output_that_cannot_be_made_is_found_before_the_first_step(config, tmp_path):
    (tmp_path / "file").touch()
    blocked = dataclasses.replace(config, output=tmp_path / "file" / "run")
    with pytest.raises(FileError, match="cannot make the folder"):
        next(train(blocked))
