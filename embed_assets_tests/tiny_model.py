"""A sentence-transformers model of a few hundred kilobytes, made on the spot.

Its weights are random and its words few, but it is loaded, trained, saved and served by the same
code as a real one, in a second.
"""

from pathlib import Path
from typing import Any

WORDS = """
the of and a to in is it on for with by from at as this that be are or not which when where how
what page document section valve pump pressure reading salt brine sensor tape winch float warranty
calibration torque bolt engine wing flow heat temperature contract party notice days payment patient
dose trial placebo network layer token model training question answer table figure value result
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda omega
"""


def make_tiny_model(
    folder: Path, size: int = 32, limit: int = 128, dropout: float = 0.1, layers: int = 1
) -> Path:
    """Write the model to a folder and return it. size: of its embeddings; limit: in tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = list(dict.fromkeys([*specials, *".,:;-()?!|#*", *pieces, *WORDS.split()]))
    parts = folder / "parts"
    parts.mkdir(parents=True)
    (parts / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(vocab=str(parts / "vocab.txt"), model_max_length=limit)
    tokenizer.save_pretrained(parts)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * size,
        max_position_embeddings=limit,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(parts)
    transformer = Transformer(str(parts), max_seq_length=limit)
    model = SentenceTransformer(modules=[transformer, Pooling(size)])
    target = folder / "tiny-model"
    model.save_pretrained(str(target))
    return target


def make_static_model(folder: Path) -> Path:
    """Write a model that is the mean of its words' embeddings, with no transformer; return it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    transformer: Any = SentenceTransformer(str(make_tiny_model(folder)))[0]
    weights = transformer.auto_model.get_input_embeddings().weight.detach().numpy()
    embedding = StaticEmbedding(transformer.tokenizer, embedding_weights=weights)
    target = folder / "static-model"
    SentenceTransformer(modules=[embedding]).save_pretrained(str(target))
    return target
