"""Tiny text encoders as they are published: random tensors under public names, tokenizers, folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests import golden

WORDS = ["cancer", "location", "diagnosis", "breast", "lung", "the", "patient"]
WORDS += ["died", "was", "censored", "between", "8", "and", "17", "months", ";", ":"]
SENTENCES = [
    "cancer location : breast",
    "the patient died between 8 and 17 months",
    "the patient was censored ; " * 8,
    "lung",
    "an unknown word",
    "",
]

BERT_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(BERT_VOCAB),
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 70,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-3,
    "hidden_act": "gelu",
}

CONCH = golden.MANIFEST["conch_text"]
CONCH_VOCAB = ["<pad>", "<start_of_text>", "<end_of_text>", "<unk>", *WORDS]
CONCH_OTHER_PARTS = {
    "visual.trunk.cls_token": np.zeros((1, 1, 4), np.float32),
    "text_decoder.resblocks.0.ln_1.weight": np.ones(4, np.float32),
    "text_decoder.resblocks.0.ln_1.bias": np.ones(4, np.float32),
    "logit_scale": np.array(4.6, np.float32),
}


def bert_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of a BERT checkpoint, under current names."""
    rng = np.random.default_rng(seed)
    d, mlp = BERT["hidden_size"], BERT["intermediate_size"]
    draw = lambda *shape: np.asarray(rng.normal(0.0, 0.3, shape), np.float32)  # noqa: E731
    linear = lambda name, n, m: {f"{name}.weight": draw(n, m), f"{name}.bias": draw(n)}  # noqa: E731
    norm = lambda name: {f"{name}.weight": 1 + draw(d), f"{name}.bias": draw(d)}  # noqa: E731
    tensors = {
        "embeddings.word_embeddings.weight": draw(BERT["vocab_size"], d),
        "embeddings.position_embeddings.weight": draw(BERT["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": draw(2, d),
        "embeddings.position_ids": np.arange(BERT["max_position_embeddings"])[None],
        **norm("embeddings.LayerNorm"),
        **linear("pooler.dense", d, d),
    }
    for i in range(BERT["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{part}", d, d)
        tensors |= linear(f"{layer}.attention.output.dense", d, d)
        tensors |= norm(f"{layer}.attention.output.LayerNorm")
        tensors |= linear(f"{layer}.intermediate.dense", mlp, d)
        tensors |= linear(f"{layer}.output.dense", d, mlp) | norm(f"{layer}.output.LayerNorm")
    return tensors


def old_bert_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names of checkpoints with pretraining heads, as TensorFlow's were converted."""
    renamed = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed[f"bert.{name}"] = value
    return renamed | {"cls.predictions.bias": np.zeros(len(BERT_VOCAB), np.float32)}


def write_bert(folder: Path, tensors: dict[str, np.ndarray], **changes: object) -> Path:
    """A folder in Hugging Face layout."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BERT | changes))
    save_file(tensors, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(BERT_VOCAB)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding()  # as many published files have it: must not leak into the lengths
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def conch_tensors(seed: int | None = None) -> dict[str, np.ndarray]:
    """The tensors of a text tower, without prefix: the recorded ones, or others of the same shapes."""
    recorded = golden.weights(golden.load("conch_text"))
    if seed is None:
        return recorded
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0.0, 0.3, a.shape).astype(np.float32) for name, a in recorded.items()}


def write_conch(
    path: Path, tensors: dict[str, np.ndarray], prefix: str = "text.", others: dict = CONCH_OTHER_PARTS
) -> Path:
    """A weight file with a text tower and what else is published with it."""
    mask = np.triu(np.full((CONCH["context_length"],) * 2, -np.inf, np.float32), 1)
    tower = {f"{prefix}{name}": value for name, value in (tensors | {"attn_mask": mask}).items()}
    save_file(tower | others, path)
    return path


def write_conch_tokenizer(path: Path, vocab: list[str] = CONCH_VOCAB, template: str | None = None) -> Path:
    """A tokenizer of words with the special tokens of the published one, and like it in lower case."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocab)}, unk_token="<unk>"))
    tokenizer.add_special_tokens([word for word in vocab if word in CONCH_VOCAB[:3]])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template or "<start_of_text> $A <end_of_text>",
        special_tokens=[(word, vocab.index(word)) for word in CONCH_VOCAB[1:3]],
    )
    tokenizer.save(str(path))
    return path


def conch_ids(sentence: str) -> list[int]:
    """Token ids of a sentence, by hand."""
    words = [CONCH_VOCAB.index(w) if w in CONCH_VOCAB else 3 for w in sentence.lower().split()]
    return [1, *words, 2]
