"""Small transformers models of random weights: their scores mean nothing, but every token that is
read differently changes them."""

from pathlib import Path
from typing import Any


def save_random_model(kind: str, folder: Path, **config: Any) -> None:
    """Write the weights and config.json of a model of two layers and 32 dimensions to `folder`.

    kind: its class in transformers, as "BertForSequenceClassification". config: what else its
    configuration says.
    """
    import torch
    import transformers

    model = getattr(transformers, kind)
    torch.manual_seed(1)
    small = model.config_class(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        **config,
    )
    model(small).save_pretrained(folder)
