"""Configs: every key checked, every key used, every shipped file takes a step."""

import dataclasses
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

import modaltune_jax
from configs import baselines, common, hipt
from modaltune_jax import config_file, experiment, partitioning
from modaltune_jax.config import Config, describe, unpack
from modaltune_jax.inputs.pipeline import train_batches
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.locations import shipped
from modaltune_jax.models.baselines import BASELINES
from modaltune_jax.models.build import build_model
from modaltune_jax.models.encoders.mean_pool import MeanPoolConfig
from modaltune_jax.models.encoders.titan import TitanConfig
from modaltune_jax.models.weights import EncoderWeightsConfig
from modaltune_jax.supervision import supervise
from modaltune_jax.targets import load_encoder
from modaltune_jax.train import build
from modaltune_jax.types import InputError
from tests import tiny
from tests.baseline_batches import INPUTS, draw

PACKAGE = str(Path(modaltune_jax.__file__).parent)
BOTH = ("slides", "expression")


def leaves(config: ConfigDict, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in config.items():
        found += leaves(value, (*path, key)) if isinstance(value, ConfigDict) else [(*path, key)]
    return found


KEYS = leaves(common.get_config())


def parent(config: ConfigDict, path: tuple[str, ...]) -> ConfigDict:
    for key in path[:-1]:
        config = config[key]
    return config


def error_of(config: ConfigDict) -> str:
    with pytest.raises(InputError) as info:
        unpack(config)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_a_missing_key_is_named(path):
    config = common.get_config()
    del parent(config, path)[path[-1]]
    assert ".".join(path) in error_of(config)


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_a_value_of_another_type_is_named(path):
    config = common.get_config()
    with config.ignore_type():
        parent(config, path)[path[-1]] = object
    assert ".".join(path) in error_of(config)


@pytest.mark.parametrize("path", [key for key in KEYS if key[-2:] != ("encoder", "name")], ids=".".join)
def test_a_misspelt_key_is_refused_with_the_right_one(path):
    config = common.get_config()
    group = parent(config, path)
    group[path[-1] + "s_"] = group[path[-1]]
    message = error_of(config)
    assert f"unknown config key config.{'.'.join(path)}s_" in message
    assert f"did you mean config.{'.'.join(path)}?" in message


@pytest.mark.parametrize(
    ("override", "part"),
    [
        pytest.param("colour=3", "unknown config key config.colour; known: name, seeds", id="no near miss"),
        pytest.param("optimm.epochs=3", "did you mean config.optim?", id="misspelt group"),
        pytest.param("name.first=3", "config.name is a value", id="key in a value"),
        pytest.param("optim=3", "config.optim must be a group", id="value for a group"),
        pytest.param("model.encoder=3", "config.model.encoder must be a group", id="value for the encoder"),
        pytest.param("model.encoder.name=resnet", "known encoders: longnet, mean_pool", id="encoder"),
        pytest.param("optim.epochs", "has no value", id="no value"),
        pytest.param("=3", "has no value", id="no key"),
        pytest.param("optim.epochs=", "must be a whole number", id="empty value"),
        pytest.param("optim.epochs=2.5", "must be a whole number", id="fraction"),
        pytest.param("optim.epochs=True", "must be a whole number", id="truth value"),
        pytest.param("optim.learning_rate=high", "must be a number", id="word for a number"),
        pytest.param("optim.learning_rate=1e999", "must be a number", id="infinite"),
        pytest.param("model.encoder.remat=1", "must be True or False", id="number for a truth value"),
        pytest.param("data.cohorts=1", "config.data.cohorts[0] must be text", id="number for text"),
        pytest.param("optim.rules=(('.*',),)", "config.optim.rules[0] must have 2 entries", id="short rule"),
        pytest.param("seeds=()", "config.seeds", id="no seed"),
        pytest.param("seeds=1,1", "config.seeds", id="seed twice"),
        pytest.param("seeds=-1", "config.seeds", id="negative seed"),
        pytest.param("name=", "config.name is empty", id="no name"),
        pytest.param("compare=()", "config.compare", id="no variant"),
        pytest.param("compare=(('a',('slides',)),('a',('slides',)))", "config.compare", id="variant twice"),
        pytest.param("compare=(('../a',('slides',)),)", "name of a folder", id="variant outside the workdir"),
        pytest.param("compare=(('a',('slide',)),)", "'slide'", id="unknown modality of a variant"),
        pytest.param("compare=(('a',('clinical',)),)", "model.modalities", id="modality the model lacks"),
        pytest.param("compare=(('a',()),)", "one or more", id="variant that is shown nothing"),
        pytest.param("pipeline.modalities=slides", "config.compare", id="modalities in the wrong place"),
        pytest.param("pipeline.layout=heap", "pipeline.layout", id="layout"),
        pytest.param("model.modalities=slides,sound", "config.model.modalities", id="unknown modality"),
        pytest.param("model.tasks=general", "config.model.tasks", id="tasks"),
        pytest.param("model.fusion=max", "sum, cat", id="fusion"),
        pytest.param("model.expression_agg=max", "avg, cls", id="aggregation"),
        pytest.param("model.adapter.stages=((0,4),(5,12))", "model.adapter.stages", id="gap between stages"),
        pytest.param("model.adapter.stages=((0,4),(4,8))", "model.encoder.depth=12", id="last blocks unused"),
        pytest.param("model.adapter.stages=()", "model.adapter.stages", id="no stage"),
        pytest.param("model.adapter.num_heads=5", "multiple of num_heads 5", id="heads of the adapter"),
        pytest.param("model.adapter.attention_ratio=0.0001", "attention_ratio", id="no width left"),
        pytest.param("model.adapter.ffn_ratio=0.0001", "ffn_ratio", id="no hidden width of the adapter"),
        pytest.param("model.pathways.channel_expansion=0.0001", "channel_expansion", id="no hidden channel"),
        pytest.param("model.encoder.num_heads=7", "num_heads 7", id="heads of the encoder"),
        pytest.param("model.encoder.dilated_ratios=1,2", "same branches", id="branches"),
        pytest.param("model.pathways.dropout=1.0", "below 1", id="rate of 1"),
        pytest.param("loss.distillation.temperature=0", "must be positive", id="temperature of 0"),
        pytest.param("loss.distillation.weight=0", "config.loss has no term", id="no loss"),
        pytest.param("loss.distillation.weight=-1", "0 or more", id="negative weight"),
        pytest.param("loss.distillation.form=l2", "kl, cosine", id="form of distillation"),
        pytest.param("loss.distillation.tasks=grade", "loss.distillation.tasks", id="unknown task"),
        pytest.param("loss.cox.ties=exact", "efron, breslow", id="ties"),
        pytest.param("loss.cox.memory=8", "no loss.cox.weight", id="memory without a loss"),
        pytest.param("loss.discrete_hazard.num_bins=1", "2 or more", id="one survival bin"),
        pytest.param("loss.ranking.scale=0", "must be positive", id="scale of 0"),
        pytest.param("loss.text_similarity.scope=organ", "site, all", id="scope"),
        pytest.param("loss.text_similarity.temperature=0.001", "0.01 or more", id="temperature too low"),
        pytest.param(
            "loss.text_similarity.templates=lung,", "text_similarity.templates", id="no placeholder"
        ),
        pytest.param("loss.text_similarity.templates=()", "text_similarity.templates", id="no template"),
        pytest.param("pipeline.spread=stage", "site, event, subtype", id="unknown label to spread"),
        pytest.param("checkpoint.best=survival:risk", "loss.cox or loss.ranking", id="head without a loss"),
        pytest.param("optim.epochs=0", "must be positive", id="no epoch"),
        pytest.param("optim.warmup_epochs=60", "optim.warmup_epochs", id="warm-up as long as training"),
        pytest.param("optim.weight_decay=-1", "0 or more", id="negative decay"),
        pytest.param("optim.rules=(('(','train'),)", "regular expression", id="broken pattern"),
        pytest.param("checkpoint.every_epochs=0", "must be positive", id="no probes"),
        pytest.param("checkpoint.best=subtypes", "config.checkpoint.best", id="unknown selection"),
        pytest.param("checkpoint.best=last,subtype", "config.checkpoint.best", id="last and another"),
        pytest.param("encoder_weights.init=pretrained", "file, random", id="initialisation"),
        pytest.param("data.bins=all", "train, reference", id="bins"),
        pytest.param("data.num_bins=0", "must be positive", id="no bins"),
        pytest.param("data.simulation.cases_per_site=1", "at least 16", id="no cases"),
        pytest.param("text.projector_seed=-1", "0 or more", id="negative projector seed"),
    ],
)
def test_a_value_that_cannot_work_is_refused(override, part):
    with pytest.raises(InputError) as info:
        unpack(config_file.load("common.py", [override]))
    assert part in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        pytest.param("model.name=resnet", "known models: modaltune, slide_encoder, tile_mean", id="name"),
        pytest.param("model.in_dim=0", "config.model.in_dim is 0", id="no width"),
        pytest.param("model.in_dim=8", "model.sizes.encoder.in_dim is 1536", id="widths that differ"),
        pytest.param("model.sizes.width=8", "unknown config key config.model.sizes.width", id="size"),
        pytest.param("model.sizes.encoder.name=resnet", "known encoders", id="encoder"),
        pytest.param("loss.distillation.weight=1.0", "learns from labels", id="text"),
        pytest.param("mesh.sequence=2", "sees whole bags", id="split bags"),
        pytest.param("checkpoint.best=survival:risk", "no loss trains the head", id="head without a loss"),
        pytest.param("optim.epochs=0", "must be positive", id="a loss and no epoch"),
        pytest.param("loss.cross_entropy.weight=0", "set optim.epochs=0", id="epochs and no loss"),
    ],
)
def test_a_value_that_no_baseline_can_have_is_refused(override, part):
    with pytest.raises(InputError) as info:
        unpack(config_file.load("baselines.py:slide_encoder_cat,subtype", [override]))
    assert part in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["modaltune", *BASELINES])
def test_a_config_survives_the_way_to_json(name):
    file = "common.py" if name == "modaltune" else f"baselines.py:{name},subtype"
    config = unpack(config_file.load(file))
    assert unpack(ConfigDict(describe(config))) == config


SHIPPED = [
    *(name for name in config_file.names() if name not in ("hipt.py", "baselines.py")),
    "pancancer.py:demo",
    "pancancer.py:labels",
    "pancancer.py:clinical",
    "pancancer.py:reference",
    *(f"hipt.py:pancancer,{encoder}" for encoder in ("mean_pool", "longnet", "longnet_frozen")),
    "hipt.py:blca,longnet",
    *(f"hipt.py:pancancer,mean_pool,{loss}" for loss in hipt.LOSSES if loss != "text"),
    "titan.py:brca",
    *(f"baselines.py:{name},subtype" for name in baselines.MODELS),
    "baselines.py:abmil,survival,hipt:brca",
    "baselines.py:abmil,cox,demo",
]


def test_shipped_configs_are_all_here():
    assert {name.partition(":")[0] for name in SHIPPED} == set(config_file.names())
    assert {file.name for file in shipped("configs").glob("*.py")} == {*config_file.names(), "common.py"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records and their targets, of the same shape for every config."""
    folder = tmp_path_factory.mktemp("tiny")
    _, records, targets = tiny.experiment(folder)
    return folder, records, targets


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_takes_a_step(name, data):
    folder, records, targets = data
    as_shipped = config_file.load(name)
    unpack(as_shipped)
    if name.startswith("baselines.py"):
        tiny.shrink_baseline(as_shipped)
        as_shipped.pipeline.num_buckets = 1
    else:
        tiny.shrink(as_shipped, as_shipped.model.encoder.name)
        as_shipped = tiny.smallest(as_shipped)
    config = unpack(as_shipped)
    labels = supervise(records, load_encoder(folder / "sentences.npz"), config.loss)
    targets = dataclasses.replace(targets, supervision=labels)
    (_, modalities), *_ = config.compare
    run, state = build(config, 0, modalities, records, targets)
    batches = train_batches(
        records, records.rows("train"), targets.values, targets.transforms, run.pipeline, seed=0
    )
    batch = partitioning.shard_batch(next(iter(batches)), run.mesh)
    before = [np.array(leaf) for leaf in jax.tree.leaves(state.trainable)]
    state, metrics = run.train_step(state, run.frozen, batch)
    assert np.isfinite(metrics["loss"])
    after = jax.tree.leaves(state.trainable)
    assert any(not np.array_equal(x, y) for x, y in zip(before, after, strict=True))


def watch(value, seen: set):
    """A copy of a dataclass that notes which of its fields the package's own code reads."""
    if not dataclasses.is_dataclass(value):
        return value
    kind: typing.Any = type(value)
    names = {field.name for field in dataclasses.fields(kind)}

    class Watched(kind):
        def __getattribute__(self, name):
            caller = sys._getframe(1).f_code
            is_check = caller.co_name == "__post_init__" or caller.co_filename.endswith("config_checks.py")
            if name in names and caller.co_filename.startswith(PACKAGE) and not is_check:
                seen.add(f"{kind.__name__}.{name}")
            return super().__getattribute__(name)

    copy = object.__new__(Watched)
    for name in names:
        object.__setattr__(copy, name, watch(getattr(value, name), seen))
    return copy


def all_fields(kind) -> set[str]:
    """`Class.field` of every leaf that a dataclass of dataclasses can have."""
    found = set()
    for name, hint in typing.get_type_hints(kind).items():
        kinds = [k for k in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(k)]
        found |= set().union(*map(all_fields, kinds)) if kinds else {f"{kind.__name__}.{name}"}
    return found


def test_watching_notes_reads_of_the_package_only(data):
    seen = set()
    config = watch(unpack(common.get_config()), seen)
    assert config.optim.epochs == 60
    dataclasses.replace(config.pipeline)
    assert not seen
    partitioning.make_mesh(config.mesh)
    assert seen == {"MeshConfig.data", "MeshConfig.fsdp", "MeshConfig.sequence"}


def read_by_baselines(seen: set[str]) -> None:
    """Sizes of every baseline are read where it is built or where it runs."""
    batch = jax.tree.map(jnp.asarray, draw((3, 2)))
    for name, (kind, _) in BASELINES.items():
        as_written = config_file.load(f"baselines.py:{name},subtype")
        tiny.shrink_baseline(as_written)
        model = watch(unpack(as_written).model, seen)
        nnx.eval_shape(
            lambda model=model: build_model(model, INPUTS, None, rngs=nnx.Rngs(0))(batch).embedding
        )
        assert all_fields(kind) <= seen


def test_every_key_is_read(data, tmp_path, capsys):
    """A key that nothing reads is a promise that nothing keeps."""
    folder, records, targets = data
    seen: set[str] = set()
    as_written = tiny.smallest(tiny.config_dict(folder))
    as_written.loss = common.loss(
        distillation=1.0, cox=1.0, discrete_hazard=1.0, ranking=1.0, text_similarity=1.0, cross_entropy=1.0
    )
    as_written.loss.cox.memory = 5
    as_written.loss.discrete_hazard.num_bins = 2
    config = unpack(as_written)
    shorter = dataclasses.replace(config.optim, epochs=1, warmup_epochs=0)
    experiment.run(
        watch(dataclasses.replace(config, optim=shorter), seen), tmp_path / "run", is_training=True
    )
    capsys.readouterr()

    weights = EncoderWeightsConfig(init="file", path=str(tmp_path / "none.safetensors"))
    for encoder in (
        MeanPoolConfig(in_dim=12, width=16, depth=1),
        TitanConfig(12, 16, depth=1, num_heads=2, mlp_dim=8, pooler_heads=2, num_caption_queries=1),
    ):
        model = dataclasses.replace(config.model, encoder=encoder)
        changed = dataclasses.replace(config, model=model, encoder_weights=weights)
        with pytest.raises(InputError, match="encoder_weights"):
            build(watch(changed, seen), 0, BOTH, records, targets)

    read_by_baselines(seen)
    source = dataclasses.replace(
        config.data, source="tcga_bench", path=str(tmp_path), directory=str(tmp_path / "new"), cohorts=()
    )
    with pytest.raises(InputError):
        prepare(watch(source, seen))
    prepare(watch(dataclasses.replace(config.data, directory=str(tmp_path / "simulated")), seen))
    # The command line names the folder.
    assert all_fields(Config) - seen == {"Config.name"}
