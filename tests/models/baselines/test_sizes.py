"""Parameters of the baselines in the sizes of their papers, counted by hand from the layers stated there."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import baselines
from modaltune_jax import config_file
from modaltune_jax.config import unpack
from modaltune_jax.models.baselines import BASELINES
from modaltune_jax.models.baselines.baseline import Baseline
from modaltune_jax.models.baselines.snn import SnnConfig
from modaltune_jax.models.modalities import ModalInputs

IN_DIM, GENES = 1536, 4987
INPUTS = ModalInputs((np.arange(GENES),), 0, GENES)


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


# Ilse et al. 2018, network for histopathology: fc-512, fc-512, gated attention of 128.
ABMIL = linear(IN_DIM, 512) + linear(512, 512) + 2 * linear(512, 128) + 128
# Shao et al. 2021: fc-512 and class token; two layers of LayerNorm and 8 heads of 64 in three projections
# without bias, an output projection, a kernel of 33 a head; depthwise convolutions of 7, 5, 3; LayerNorm.
TRANSMIL_LAYER = 2 * 512 + 512 * 3 * 512 + linear(512, 512) + 8 * 33
TRANSMIL_POSITIONS = (49 + 25 + 9) * 512 + 3 * 512
TRANSMIL = linear(IN_DIM, 512) + 512 + 2 * TRANSMIL_LAYER + TRANSMIL_POSITIONS + 2 * 512
# Chen et al. 2021: two layers of 256 on genes.
SNN = linear(GENES, 256) + linear(256, 256)
# Prov-GigaPath by itself.
LAYER = 4 * linear(768, 768) + linear(768, 3072) + linear(3072, 768) + 3 * 2 * 768 + 2 * 3072
GIGAPATH = linear(IN_DIM, 768) + 768 + 12 * LAYER + 2 * 2 * 768


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("slide_encoder", GIGAPATH),
        ("tile_mean", 0),
        ("mean_pool", linear(IN_DIM, 512)),
        ("abmil", ABMIL),
        ("transmil", TRANSMIL),
        ("abmil_cat", ABMIL + SNN + linear(512 + 256, 256)),
        ("transmil_cat", TRANSMIL + SNN + linear(512 + 256, 256)),
        ("slide_encoder_cat", GIGAPATH + SNN + linear(768 + 256, 256)),
    ],
)
def test_parameters(name, expected):
    config = unpack(config_file.load(f"baselines.py:{name},subtype")).model
    state = nnx.eval_shape(lambda: nnx.state(Baseline(config, INPUTS, None, rngs=nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == expected


@pytest.mark.parametrize(
    "name", [name for name, (config, _) in BASELINES.items() if hasattr(config, "published")]
)
def test_the_config_has_the_published_sizes(name):
    sizes = unpack(config_file.load(f"baselines.py:{name},subtype")).model.sizes
    assert sizes == BASELINES[name][0].published()


def test_expression_beside_slides_has_the_published_sizes():
    assert SnnConfig(**baselines.SNN) == SnnConfig.published()
