"""The published sizes: parameter counts, and the public checkpoint's names, without computing anything."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from configs import pancancer
from modaltune_jax.config import unpack
from modaltune_jax.convert.modaltune import rules, to_params, to_tensors
from modaltune_jax.inputs.genesets import read_gene_sets
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune
from modaltune_jax.optim import count, split_params

SHARED = Path(__file__).parents[2] / "shared"
PATHWAYS = SHARED / "tcga" / "pathways.csv.gz"
NAMES = SHARED / "golden" / "checkpoint_keys.json"


@pytest.mark.skipif(not PATHWAYS.exists(), reason="needs the published pathways, which are not ours to ship")
def test_published_sizes_and_names():
    """33.5 M trainable, 86.3 M frozen (Ramanathan et al. 2025); every public tensor has its one place."""
    genes = pd.read_csv(PATHWAYS)["gene"].unique().tolist()
    groups = read_gene_sets(PATHWAYS, genes).groups
    config = unpack(pancancer.get_config())
    model = nnx.eval_shape(lambda: ModalTune(config.model, ModalInputs(groups, 5), rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model))
    trainable, frozen = split_params(params, config.optim.rules)
    assert (count(trainable), count(frozen)) == (33_524_890, 86_330_880)

    shapes = json.loads(NAMES.read_text())["modaltune_gigapath best_model_weights.pt"]
    table = rules(
        [len(group) for group in groups], config.model.pathways.depth, len(config.model.adapter.stages)
    )
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    public = to_tensors(to_params(tensors, params, table), table)
    assert {name: list(tensor.shape) for name, tensor in public.items()} == shapes
