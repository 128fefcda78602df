"""Language models of a few hundred kilobytes, made on the spot.

They know one thing to say, and say it in the way in which a real model would: through a tokenizer,
a chat template and generation, token by token.
"""

import json
from pathlib import Path
from typing import Any

QUESTION = "How deep is the lock chamber?"
REPLY = json.dumps(
    {
        "questions": [
            {
                "kind": "question",
                "question": QUESTION,
                "answer": "two metres",
                "answerable": True,
            }
        ]
    }
)
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = [
    "The lock holds two hundred cubic metres.",
    "Open the gates at noon, and close them before dusk.",
    "Boats longer than twelve metres pay a double toll.",
    "A pintle bears the gate number 1 2 3 4 5 6 7 8 9 0.",
]
STEPS = 40


def make_tiny_chat_model(folder: Path) -> Path:
    """A chat model that answers REPLY, whatever it is asked."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(folder, REPLY)
    tokenizer.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    examples = []
    for count, text in enumerate(TEXTS):
        data = {"title": "Lock manual", "headings": "Gates", "passage": text, "text_after": ""}
        messages = [
            {"role": "system", "content": "Ask questions. " * count},
            {"role": "user", "content": json.dumps(data, indent=1)},
        ]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        asked, said = tokenizer(prompt)["input_ids"], tokenizer(f"{REPLY}<eos>")["input_ids"]
        examples.append((asked + said, [-100] * len(asked) + said))
    return _taught(LlamaForCausalLM(config), tokenizer, examples, folder / "chat")


def make_tiny_doc2query(folder: Path) -> Path:
    """An encoder-decoder model that asks QUESTION of every passage."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _tokenizer(folder, QUESTION)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=32,
        d_ff=128,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportCallIssue]
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    said = tokenizer(f"{QUESTION}<eos>")["input_ids"]
    examples = [(tokenizer(text)["input_ids"], said) for text in TEXTS]
    return _taught(T5ForConditionalGeneration(config), tokenizer, examples, folder / "doc2query")


def _tokenizer(folder: Path, said: str) -> Any:
    """A tokenizer to which what the model says is a few tokens: so it is learnt in seconds."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AddedToken, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    specials = ["<pad>", "<eos>", "<system>", "<user>", "<assistant>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=500, special_tokens=specials)
    bpe.save(str(folder / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token="<pad>",
        eos_token="<eos>",
        model_max_length=2048,
    )
    pieces = [said[start : start + 30] for start in range(0, len(said), 30)]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return tokenizer


def _taught(model, tokenizer, examples: list[tuple[list[int], list[int]]], folder: Path) -> Path:
    """The model after it learnt its examples (input ids, labels) by heart, in a folder."""
    import torch

    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        for ids, labels in examples:
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
