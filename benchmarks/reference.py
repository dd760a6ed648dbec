"""The public PyTorch reference, imported from a checkout at run time; nothing of it is copied here.

Its dependencies that a forward and backward pass does not need (fairscale, timm's registry, TITAN's gated
code) are replaced by empty modules. Where flash-attn is missing its function is replaced by torch's own flash
attention, which returns the log-sum-exp just the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

from modaltune_jax.types import InputError


class Reference:
    """The published model for three tasks, and what its trainer does with one case.

    Args:
      checkout: folder of the public repository.
      num_grids: side of the grid of positions. The published 1000 is a table of 3 GB.
      seed: of the random weights.
      device: "cpu" or "cuda".

    Raises:
      InputError: the folder is no checkout of the reference.
    """

    def __init__(self, checkout: Path, num_grids: int, seed: int, device: str):
        settings = checkout / "model_configs" / "modaltune_gigapath_config.json"
        if not settings.is_file():
            raise InputError(
                f"{checkout} is no checkout of the public ModalTune: {settings} is missing; "
                "clone https://github.com/martellab-sri/ModalTune and give its folder to --reference"
            )
        self.device = torch.device(device)
        torch.manual_seed(seed)
        # It reads the segments from the text of a list of numpy integers, which numpy 2 writes otherwise.
        with contextlib.redirect_stdout(io.StringIO()), np.printoptions(legacy="1.25"):
            adapter_module, groups_module = _import(checkout)
            self.attention = _attention(self.device)
            self.groups = groups_module.pathway_gene_groups(1)
            config = json.loads(settings.read_text(encoding="utf-8"))
            config.update(slide_ngrids=num_grids, pretrained=False, multi_task=3)
            self.model = adapter_module.LongNetGeneAdapter(gene_group_defination=self.groups, **config)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name.endswith("gamma"):  # 0 at first: the injectors would do nothing
                    parameter.normal_(0.0, 0.5)
        self.model.eval().to(self.device)

    def gene_groups(self) -> tuple[np.ndarray, ...]:
        """Indices into the genes in order of first appearance, a group a pathway."""
        index: dict[str, int] = {}
        return tuple(
            np.array([index.setdefault(gene, len(index)) for gene in genes], np.int32)
            for genes in self.groups.values()
        )

    def save(self, path: Path) -> None:
        """All weights under their public names, without the fixed positions."""
        state = {name: value.cpu().numpy() for name, value in self.model.state_dict().items()}
        np.savez(path, **state)

    def gradients(
        self,
        features: np.ndarray,
        coords: np.ndarray,
        expression: np.ndarray,
        targets: np.ndarray,
        *,
        is_training: bool,
        dtype: str,
    ) -> tuple[np.ndarray, float]:
        """Embeddings and loss of one case after forward and backward pass of every task.

        The published trainer keeps the graphs of all three passes and goes back once. The backward pass of a
        task right after its forward pass computes the same in a third of the memory, and no slower.

        Args:
          features: `[l, d]`.
          coords: `[l, 2]` pixels.
          expression: `[g]`.
          targets: `[t, e]` projected text.
          is_training: with dropout.
          dtype: "float32", or "bfloat16" by autocast.
        """
        to = lambda x: torch.from_numpy(x).to(self.device)  # noqa: E731
        x, places, target = to(features)[None], to(coords)[None], to(targets)
        genes = {i: to(expression[group])[None] for i, group in enumerate(self.gene_groups())}
        self.model.train(is_training)
        self.model.zero_grad(set_to_none=True)
        embeddings, total = [], 0.0
        for task, one_hot in enumerate(torch.eye(len(targets), device=self.device)):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                embedding = self.model(x=x, coords=places, genes=genes, task_token=one_hot)
            loss = _kl(embedding.float(), target[task : task + 1])
            loss.backward()
            embeddings.append(embedding.detach().float())
            total += float(loss.detach())
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return torch.cat(embeddings).cpu().numpy(), total

    def gradient(self, name: str) -> np.ndarray:
        """Of the parameter of that public name, after `gradients`."""
        return self.model.get_parameter(name).grad.float().cpu().numpy()


def _kl(embedding: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Ten times the divergence between the softmaxes of unit vectors."""
    unit = torch.nn.functional.normalize
    log_q = torch.log_softmax(unit(embedding, dim=-1), dim=-1)
    p = torch.softmax(unit(target, dim=-1), dim=-1)
    return 10.0 * torch.nn.functional.kl_div(log_q, p, reduction="sum")


def _import(checkout: Path) -> tuple[types.ModuleType, types.ModuleType]:
    """The modules of the model and of the pathways."""
    identity = lambda x, *arguments, **settings: x  # noqa: E731
    stand_ins = {
        "fairscale": {},
        "fairscale.nn": {"checkpoint_wrapper": identity, "wrap": identity},
        "timm": {},
        "timm.models": {},
        "timm.models.registry": {"register_model": identity},
        "timm.models.layers": {"drop_path": _drop_path},
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(members)
        sys.modules[name] = module
    # Its own __init__ would import the TITAN variant, whose code is gated.
    package = types.ModuleType("models.aggregators")
    package.__path__ = [str(checkout / "models" / "aggregators")]
    sys.modules[package.__name__] = package
    sys.path.insert(0, str(checkout))
    from models.aggregators import longvit_adapter
    from models.genomic_utils import define_gene_groups

    return longvit_adapter, define_gene_groups


def _drop_path(x: torch.Tensor, rate: float, is_training: bool) -> torch.Tensor:
    """Stochastic depth, for timm's."""
    if not is_training or rate == 0.0:
        return x
    keep = torch.rand((len(x),) + (1,) * (x.dim() - 1), device=x.device) >= rate
    return x * keep / (1.0 - rate)


def _attention(device: torch.device) -> str:
    """Sees to it that the reference has a flash attention, and says which."""
    modules = [
        module for name, module in sys.modules.items() if name.endswith("component.multihead_attention")
    ]
    if all(module.flash_attn_func is not None for module in modules):
        return "flash-attn"
    for module in modules:
        module.flash_attn_func = _on_cuda if device.type == "cuda" else _on_cpu
    return "torch's own flash attention in place of flash-attn, which is not installed"


def _on_cpu(q, k, v, dropout=0.0, bias=None, softmax_scale=None, is_causal=False):
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    o, lse = flash(q, k, v, dropout, is_causal, scale=softmax_scale)
    return o.transpose(1, 2), lse


def _on_cuda(q, k, v, dropout=0.0, bias=None, softmax_scale=None, is_causal=False):
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    o, lse, *_ = flash(q, k, v, dropout, is_causal, scale=softmax_scale)
    return o.transpose(1, 2), lse
