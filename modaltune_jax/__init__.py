"""ModalTune in JAX: fine-tune slide-level pathology encoders with a multi-modal adapter."""

__version__ = "0.1.0"
