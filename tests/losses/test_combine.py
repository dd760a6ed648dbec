"""Terms combined: what each is the mean over, what a missing label does, weights, memory, devices."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from modaltune_jax.config import _unpack
from modaltune_jax.losses.combine import TERMS, LabelSpace, LossConfig, make_objective, similarity_logits
from modaltune_jax.losses.cox import cox
from modaltune_jax.losses.discrete_hazard import bin_of, nll
from modaltune_jax.losses.distillation import cosine_to_text, kl_to_text
from modaltune_jax.losses.ranking import ranking
from modaltune_jax.losses.risk_memory import RiskMemory
from modaltune_jax.losses.text_similarity import softmax_cross_entropy
from modaltune_jax.models.heads import Predictions
from modaltune_jax.types import Batch

ROOT = Path(__file__).parents[2]
SPACE = LabelSpace(
    edges=np.array([[6, 24], [12, 60]], np.float32),
    bank=np.eye(4, 5, dtype=np.float32),
    class_site=np.array([0, 0, 1, 1], np.int32),
    class_weight=np.array([0.5, 2.0, 1.0, 1.0], np.float32),
)
LABELS = {
    "site": np.array([0, 1, 0, 1, 0, 1, 0, 0], np.int32),
    "time": np.array([5, 40, 30, 12, 5, np.nan, 8, np.nan], np.float32),
    "event": np.array([1, 1, 0, 1, 1, 1, -1, -1], np.int32),
    "subtype": np.array([0, 1, -1, 0, 1, -1, 1, -1], np.int32),
    "weight": np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32),
}
KNOWN = np.array([1, 1, 1, 1, 1, 0, 0, 0], bool)


def loss(**weights) -> LossConfig:
    return _unpack(LossConfig, common.loss(**weights).to_dict(), "config.loss")


def case(seed=0, num=8):
    """Outputs of a model, and a batch with every kind of gap; the last case is filler full of garbage."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    embedding, targets = normal(num, 3, 6), normal(num, 3, 6)
    said = Predictions(
        risk=normal(num), hazard=normal(num, 3), text=normal(num, 5), log_scale=np.float32(1.0)
    )._replace(classes=normal(num, 4))
    unused = {name: np.zeros((num, 1), np.float32) for name in Batch._fields}
    batch = Batch(**{**unused, **{k: np.resize(v, num) for k, v in LABELS.items()}, "targets": targets})
    batch = batch._replace(index=np.arange(num, dtype=np.int32))
    return jax.tree.map(jnp.asarray, (embedding, said, batch))


def terms(config, *, memory=None, **changes):
    embedding, said, batch = case()
    objective = make_objective(config, SPACE, steps_per_epoch=10)
    return objective(embedding, said, batch._replace(**changes), memory, jnp.int32(0))


def expected() -> dict[str, float]:
    """Every term's mean, with its own loss on the cases that have its label and no others."""
    embedding, said, batch = case()
    time, event = batch.time[KNOWN], batch.event[KNOWN]
    survival = (said.risk[KNOWN], time, event)
    strata = {"strata": batch.site[KNOWN]}
    bins = np.concatenate(
        [
            bin_of(np.asarray(time[i : i + 1], float), np.asarray(SPACE.edges[s], float))
            for i, s in enumerate(strata["strata"])
        ]
    )
    subtype = jnp.asarray(LABELS["subtype"])
    own = [(row, slice(0, 2) if LABELS["site"][row] == 0 else slice(2, 4)) for row in (0, 1, 3, 4, 6)]

    def entropy(logits):
        return [
            float(softmax_cross_entropy(logits[row : row + 1, span], subtype[row : row + 1])[0])
            * float(SPACE.class_weight[span][LABELS["subtype"][row]])
            for row, span in own
        ]

    pairs = ranking(*survival, **strata)
    return {
        "distillation": float(kl_to_text(embedding[:7], batch.targets[:7]).mean()),
        "cox": float(cox(*survival, **strata).sum() / 4),
        "discrete_hazard": float(nll(said.hazard[KNOWN], jnp.asarray(bins), event).mean()),
        "ranking": float(pairs.sum() / jnp.sum(pairs > 0)),
        "text_similarity": float(np.mean(entropy(similarity_logits(said, jnp.asarray(SPACE.bank))))),
        "cross_entropy": float(np.mean(entropy(said.classes))),
    }


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_the_mean_over_the_cases_with_its_label(name):
    value, values, _ = terms(loss(**{name: 0.5}))
    assert list(values) == [name]
    np.testing.assert_allclose(values[name].mean, expected()[name], rtol=1e-6)
    np.testing.assert_allclose(value, 0.5 * expected()[name], rtol=1e-6)


def test_terms_add_up():
    weights = {
        "distillation": 1.0,
        "cox": 0.1,
        "discrete_hazard": 0.2,
        "ranking": 0.3,
        "text_similarity": 0.5,
        "cross_entropy": 0.7,
    }
    value, values, _ = terms(loss(**weights))
    assert list(values) == list(TERMS)
    np.testing.assert_allclose(value, sum(w * expected()[name] for name, w in weights.items()), rtol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_cases_without_the_label_get_no_gradient(name):
    embedding, said, batch = case()
    batch = batch._replace(targets=batch.targets.at[7].set(np.nan))
    objective = make_objective(loss(**{name: 1.0}), SPACE, 10)

    def value(inputs):
        return objective(*inputs, batch, None, jnp.int32(0))[0]

    embedding_grad, said_grad = jax.grad(value)((embedding, said))
    grad = {"distillation": embedding_grad, "cox": said_grad.risk, "ranking": said_grad.risk}
    grad |= {"discrete_hazard": said_grad.hazard, "text_similarity": said_grad.text}
    grad |= {"cross_entropy": said_grad.classes}
    has_class = LABELS["subtype"] >= 0
    counted = {
        "distillation": np.arange(8) < 7,
        "text_similarity": has_class,
        "cross_entropy": has_class,
    }.get(name, KNOWN)
    sizes = np.abs(np.asarray(grad[name])).reshape(8, -1).max(axis=1)
    assert np.isfinite(sizes).all()
    assert (sizes[~counted] == 0).all()
    assert (sizes[counted] > 0).all()


@pytest.mark.parametrize("name", ["cox", "discrete_hazard", "ranking", "text_similarity", "cross_entropy"])
def test_a_batch_without_any_label_costs_nothing(name):
    nothing = {"event": jnp.full(8, -1), "subtype": jnp.full(8, -1)}
    value, values, _ = terms(loss(**{name: 1.0}), **nothing)
    assert (float(value), float(values[name].num)) == (0.0, 0.0)


def test_pairs_in_clear_order_count():
    """Their loss rounds to 0, but a mean without them would be that of the errors alone."""
    embedding, said, batch = case()
    config = loss(ranking=1.0)
    config = dataclasses.replace(config, ranking=dataclasses.replace(config.ranking, scale=0.01))
    # Site 0: the case of 8 months is unknown, the deaths at 5 months are both outlived; site 1: 12 before 40.
    risk = jnp.array([9.0, 0.0, 1.0, 9.0, 0.0, 0.0, 0.0, 0.0])
    _, values, _ = make_objective(config, SPACE, 10)(
        embedding, said._replace(risk=risk), batch, None, jnp.int32(0)
    )
    np.testing.assert_allclose(values["ranking"].total, 100.0, rtol=1e-6)
    assert float(values["ranking"].num) == 3.0


def test_weights_may_grow():
    config = loss(cox=2.0)
    config = dataclasses.replace(config, cox=dataclasses.replace(config.cox, ramp_epochs=4.0))
    embedding, said, batch = case()
    objective = make_objective(config, SPACE, steps_per_epoch=10)
    values = [float(objective(embedding, said, batch, None, jnp.int32(step))[0]) for step in (0, 10, 40, 80)]
    np.testing.assert_allclose(values, np.array([0, 0.5, 2, 2]) * expected()["cox"], rtol=1e-6)


def test_learnt_balance():
    """Kendall et al. (2018): exp(-s) L + s, and a term without cases says nothing about its s."""
    config = dataclasses.replace(loss(cox=1.0, text_similarity=1.0), uncertainty=True)
    embedding, said, batch = case()
    logs = {"cox": jnp.float32(0.7), "text_similarity": jnp.float32(-0.2)}
    objective = make_objective(config, SPACE, 10)

    def value(logs, batch):
        return objective(embedding, said._replace(log_variance=logs), batch, None, jnp.int32(0))[0]

    want = sum(np.exp(-float(s)) * expected()[name] + float(s) for name, s in logs.items())
    np.testing.assert_allclose(value(logs, batch), want, rtol=1e-6)
    grad = jax.grad(value)(logs, batch._replace(event=jnp.full(8, -1)))
    assert float(grad["cox"]) == 0.0
    assert float(grad["text_similarity"]) != 0.0


@pytest.mark.parametrize(
    ("term", "key", "value"),
    [
        pytest.param("distillation", "form", "cosine", id="cosine"),
        pytest.param("distillation", "tasks", ("survival",), id="one task"),
        pytest.param("cox", "per_site", False, id="one stratum"),
        pytest.param("cox", "ties", "breslow", id="Breslow ties"),
        pytest.param("discrete_hazard", "alpha", 0.5, id="alpha"),
        pytest.param("text_similarity", "scope", "all", id="all classes compete"),
        pytest.param("text_similarity", "is_balanced", False, id="no class weights"),
        pytest.param("cross_entropy", "is_balanced", False, id="no class weights, plain"),
    ],
)
def test_settings_reach_their_loss(term, key, value):
    config = loss(**{term: 1.0})
    changed = dataclasses.replace(
        config, **{term: dataclasses.replace(getattr(config, term), **{key: value})}
    )
    embedding, said, batch = case()
    found = float(terms(changed)[0])
    assert found != pytest.approx(float(terms(config)[0]), rel=1e-4)
    survival = (said.risk, batch.time, batch.event, batch.weight > 0)
    independent = {
        "cosine": lambda: cosine_to_text(embedding[:7], batch.targets[:7]).mean(),
        ("survival",): lambda: kl_to_text(embedding[:7, 2:], batch.targets[:7, 2:]).mean(),
        False: lambda: cox(*survival).sum() / 4 if key == "per_site" else found,
        "breslow": lambda: cox(*survival, ties="breslow", strata=batch.site).sum() / 4,
    }
    if value in independent:
        assert found == pytest.approx(float(independent[value]()), rel=1e-5)


def test_memory_widens_the_risk_sets_and_moves_on():
    config = loss(cox=1.0)
    memory = RiskMemory.empty(6).push(
        jnp.float32([1.0, -1.0]), jnp.float32([50, 3]), jnp.int32([0, 1]), jnp.int32([0, 0])
    )
    value, values, after = terms(config, memory=memory)
    _, said, batch = case()
    rows = [
        np.concatenate(pair)
        for pair in zip(([1.0, -1.0], [50, 3], [0, 1]), (said.risk, batch.time, batch.event), strict=True)
    ]
    where = np.concatenate([[True, True], LABELS["weight"] > 0])
    strata = np.concatenate([[0, 0], LABELS["site"]])
    risk, time, event = jnp.float32(rows[0]), jnp.float32(rows[1]), jnp.int32(rows[2])
    want = cox(risk, time, event, jnp.asarray(where), strata=jnp.asarray(strata)).sum() / 5
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert float(values["cox"].num) == 5
    # Seven cases of known survival for six places: the oldest is gone.
    np.testing.assert_array_equal(after.risk, np.concatenate([[-1.0], np.asarray(said.risk)[KNOWN]]))


def test_memory_leaves_the_size_of_the_gradient():
    """With the cohort in memory, current cases get their part of its gradient, scaled up to the cohort."""
    embedding, said, batch = case()
    num = int(KNOWN.sum())
    rng = np.random.default_rng(1)
    others = jnp.asarray(rng.normal(size=15), jnp.float32), jnp.asarray(rng.exponential(30, 15), jnp.float32)
    event, site = (
        jnp.asarray(rng.integers(0, 2, 15), jnp.int32),
        jnp.asarray(rng.integers(0, 2, 15), jnp.int32),
    )
    memory = RiskMemory.empty(15).push(*others, event, site)
    objective = make_objective(loss(cox=1.0), SPACE, 10)

    def value(risk):
        return objective(embedding, said._replace(risk=risk), batch, memory, jnp.int32(0))[0]

    def cohort(risk):
        rows = memory.join(risk, batch.time, batch.event, batch.site, batch.weight > 0)
        everyone = jnp.concatenate([others[0], risk])
        values = cox(everyone, rows.time, rows.event, rows.where, strata=rows.strata)
        return values.sum() / (4 + event.sum())

    np.testing.assert_allclose(value(said.risk), cohort(said.risk), rtol=1e-6)
    whole = jax.grad(cohort)(said.risk)
    np.testing.assert_allclose(jax.grad(value)(said.risk), whole * (num + 15) / num, rtol=1e-5, atol=1e-7)


SCRIPT = """
import sys
process, num_processes, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
import jax
if num_processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=num_processes, process_id=process)
import json
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from modaltune_jax.losses.combine import make_objective
from modaltune_jax.losses.risk_memory import RiskMemory
from modaltune_jax.partitioning import MeshConfig, make_mesh, replicate
from tests.losses.test_combine import SPACE, case, loss

weights = dict(distillation=1.0, cox=1.0, discrete_hazard=1.0, ranking=1.0, text_similarity=1.0)
embedding, said, batch = jax.tree.map(np.asarray, case(num=64))
share = slice(process * 64 // num_processes, (process + 1) * 64 // num_processes)
objective = make_objective(loss(**weights), SPACE, 10)

@jax.jit
def step(embedding, said, batch, memory):
    def value(inputs):
        total, terms, after = objective(*inputs, batch, memory, jnp.int32(0))
        return total, (terms, after)
    (total, (terms, after)), grads = jax.value_and_grad(value, has_aux=True)((embedding, said))
    squares = jax.tree.map(lambda g: jnp.sum(g * g), grads)
    return total, {name: term.mean for name, term in terms.items()}, squares, after

def run(mesh):
    place = lambda x: jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), x[share])
    log_scale = replicate(said.log_scale, mesh)
    outputs = jax.tree.map(place, said._replace(log_scale=None))._replace(log_scale=log_scale)
    inputs = place(embedding), outputs
    cases, memory = jax.tree.map(place, batch), replicate(RiskMemory.empty(40), mesh)
    total, terms, squares, memory = step(*inputs, cases, memory)
    again = step(*inputs, cases._replace(index=cases.index + 50), memory)
    values = jax.tree.leaves((total, terms, squares, again[:3], memory))
    if process == 0:
        print("values", json.dumps([np.asarray(value).tolist() for value in values]))

if num_processes == 1:
    run(make_mesh(MeshConfig(1)))
run(make_mesh(MeshConfig(-1)))
if num_processes > 1:
    jax.distributed.shutdown()
"""


def run_on_eight(num_processes: int) -> list[list[np.ndarray]]:
    """What this many processes find on eight devices; one process, before that, on one device."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={8 // num_processes}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    port = str(20_000 + os.getpid() % 20_000)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(i), str(num_processes), port],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(num_processes)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * num_processes, outputs[0][1][-2000:]
    told = [line.removeprefix("values") for line in outputs[0][0].splitlines() if line.startswith("values")]
    return [[np.array(value) for value in json.loads(line)] for line in told]


def test_losses_are_those_of_one_device():
    """Values, gradients, and the memory that the next batch sees."""
    one_device, eight = run_on_eight(1)
    (two_processes,) = run_on_eight(2)
    for one, many, apart in zip(one_device, eight, two_processes, strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-6, atol=1e-6, err_msg="eight devices")
        np.testing.assert_allclose(apart, one, rtol=1e-6, atol=1e-6, err_msg="two processes of four devices")
