"""The pathway encoder against recorded numbers, and pathways that nothing was measured of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.convert.modaltune import rules, to_params
from modaltune_jax.models.pathways import PathwayConfig, PathwayEncoder
from tests.golden import MANIFEST, load, relative_error, weights

CONFIG = PathwayConfig(
    latent_dim=12, depth=3, pathway_expansion=0.5, channel_expansion=0.5, num_tokens=5, dropout=0.25
)
GROUPS = tuple(np.array(group) for group in MANIFEST["gene_encoder"]["groups"])


def encoder(groups=GROUPS) -> PathwayEncoder:
    return PathwayEncoder(groups, 32, CONFIG, rngs=nnx.Rngs(0))


def test_recorded_numbers():
    golden, model = load("gene_encoder"), encoder()
    prefix = "modal_tokens.tokenisers.expression.encoder"
    tensors = {f"gene_encoder.{name}": value for name, value in weights(golden).items()}
    abstract = nnx.to_pure_dict(nnx.state(model))
    for part in reversed(prefix.split(".")):
        abstract = {part: abstract}
    table = rules([len(group) for group in GROUPS], num_mixers=3, num_stages=3)
    params = to_params(tensors, abstract, table)
    nnx.update(model, params["modal_tokens"]["tokenisers"]["expression"]["encoder"])
    out = model(jnp.asarray(golden["expression"])[None])
    assert relative_error(out, golden["out"]) < 1e-5


def test_a_pathway_without_measured_genes_tells_the_others_nothing():
    """Its own weights must not matter: neither its networks nor its bias in the mixer."""
    groups = [*GROUPS[:3], np.array([], np.int32), *GROUPS[4:]]
    model = encoder(groups)
    expression = jax.random.normal(jax.random.key(0), (2, 20))
    before = model(expression)
    networks = model.networks
    networks.bias1[...] = networks.bias1[...].at[3].set(5.0)
    networks.bias2[...] = networks.bias2[...].at[3].set(5.0)
    np.testing.assert_array_equal(model(expression), before)


def test_genes_outside_every_pathway_do_not_matter():
    model = encoder()
    unused = sorted(set(range(20)) - {int(i) for group in GROUPS for i in group})
    assert unused
    expression = jax.random.normal(jax.random.key(0), (2, 20))
    changed = expression.at[:, jnp.array(unused)].add(3.0)
    np.testing.assert_array_equal(model(expression), model(changed))


@pytest.mark.parametrize("key", [None, jax.random.key(1)], ids=["evaluation", "training"])
def test_batch_equals_singles_only_without_dropout(key):
    model = encoder()
    expression = jax.random.normal(jax.random.key(0), (3, 20))
    batched = model(expression, key)
    singles = np.concatenate([model(expression[i : i + 1], key) for i in range(3)])
    close = np.allclose(batched, singles, rtol=1e-5, atol=1e-6)
    assert close if key is None else not close
