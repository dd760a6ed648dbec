"""The label-as-text loss: an embedding should say what the sentence about the case says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# A centred gap is at most 4 / T, and exp(4 / 0.05) still fits in float32.
_MIN_TEMPERATURE = 0.05


def kl_to_text(
    embedding: Float[Array, "b t e"],
    target: Float[Array, "b t e"],
    where: Bool[Array, "b t"] | None = None,
    *,
    temperature: float = 1.0,
    scale: float = 10.0,
) -> Float[Array, "b"]:
    r"""KL divergence from text targets to embeddings, summed over the tasks of a case.

    .. math::
        \text{scale} \sum_t \sum_e p_{te} (\log p_{te} - \log q_{te}), \quad
        p = \text{softmax}(\text{unit}(\text{target}) / T), \quad
        q = \text{softmax}(\text{unit}(\text{embedding}) / T)

    Examples:
      >>> import jax.numpy as jnp
      >>> embedding = jnp.array([[[2.0, 0.0]], [[0.0, 1.0]]])
      >>> target = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
      >>> print(kl_to_text(embedding, target).round(1))
      [0.  4.6]

    Args:
      embedding: of any float type; the loss is computed and returned in float32, because targets of
        different cases differ in the third decimal only.
      target: projected text; gets a gradient like any input, so it must be data.
      where: terms to count; what is left out adds 0 to value and gradient, whatever it holds.
      temperature: T in the formula, at least 0.05.
      scale: factor on the sum.

    Returns:
      One loss a case, unreduced. A zero vector counts as the uniform distribution and gets no gradient.

    Raises:
      ValueError: temperature below 0.05.

    References:
      Ramanathan et al., `ModalTune <https://arxiv.org/abs/2503.17564>`_, 2025
    """
    if temperature < _MIN_TEMPERATURE:
        raise ValueError(
            f"temperature {temperature} is below {_MIN_TEMPERATURE}, where exp overflows float32"
        )
    embedding, target = embedding.astype(jnp.float32), target.astype(jnp.float32)
    if where is not None:
        embedding, target = (jnp.where(where[..., None], x, 0.0) for x in (embedding, target))
    logits = unit(target) / temperature
    gap = logits - unit(embedding) / temperature
    p = jax.nn.softmax(logits)
    # With the gap centred under p, sum p (log p - log q) = log E_p[exp(-gap)]. Both logarithms of the sum
    # are near 5.5 and cancel to 0.004: written out, it has a hundred times the rounding error of log1p.
    gap -= jnp.sum(p * gap, axis=-1, keepdims=True)
    divergence = jnp.log1p(jnp.sum(p * jnp.expm1(-gap), axis=-1))
    return scale * jnp.sum(divergence, axis=-1)


def cosine_to_text(
    embedding: Float[Array, "b t e"],
    target: Float[Array, "b t e"],
    where: Bool[Array, "b t"] | None = None,
    *,
    scale: float = 10.0,
) -> Float[Array, "b"]:
    r"""One minus the cosine between embedding and text target, summed over the tasks of a case.

    .. math::
        \text{scale} \sum_t (1 - \cos(\text{embedding}_t, \text{target}_t))

    Examples:
      >>> import jax.numpy as jnp
      >>> embedding = jnp.array([[[2.0, 0.0]], [[0.0, 1.0]]])
      >>> target = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
      >>> print(cosine_to_text(embedding, target))
      [ 0. 10.]

    Args:
      embedding: of any float type; the loss is computed and returned in float32.
      target: projected text.
      where: terms to count; what is left out adds 0 to value and gradient, whatever it holds.
      scale: factor on the sum.

    Returns:
      One loss a case, unreduced. A zero vector counts as half a unit apart and gets no gradient.
    """
    embedding, target = embedding.astype(jnp.float32), target.astype(jnp.float32)
    if where is not None:
        embedding, target = (jnp.where(where[..., None], x, 0.0) for x in (embedding, target))
    # Half the squared distance of unit vectors is 1 - cosine, without its cancellation for close ones.
    gap = unit(embedding) - unit(target)
    distance = 0.5 * jnp.sum(gap * gap, axis=-1)
    if where is not None:
        distance = jnp.where(where, distance, 0.0)
    return scale * jnp.sum(distance, axis=-1)


def unit(x: Float[Array, "*s e"]) -> Float[Array, "*s e"]:
    """x / |x|, and 0 with gradient 0 for a zero vector, where the norm has no derivative."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    is_zero = square == 0.0
    return jnp.where(is_zero, 0.0, x * jax.lax.rsqrt(jnp.where(is_zero, 1.0, square)))
