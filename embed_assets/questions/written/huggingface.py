"""A language model on this machine: any transformers model that generates text.

Three sorts, told apart by the model's files: chat models get the same prompt as an API does; plain
language models continue `Question:` after the passage; encoder-decoder models (doc2query: Nogueira
& Lin 2019) are given the passage alone and write what one would ask.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from embed_assets.errors import SettingsError, one_line
from embed_assets.machine import this_machine
from embed_assets.models.spread import begun_again
from embed_assets.questions.written.openai import READINGS, Keep, Spend, Spent
from embed_assets.questions.written.prompts import Prompt
from embed_assets.resources.answers import Reply, reply_now
from embed_assets.settings import Settings

BATCHES_SORTED = 16
"""Batches that are drawn together and sorted by length, so that little is padded."""
LONGEST_QUESTION = 64  # tokens
LONGEST_PASSAGE = 1024  # tokens, for models that name no limit
MOST_MODELS = 1024
"""That work side by side on a Ray cluster; as many as it has room for."""
SECONDS = 4 * 3600.0
"""For a batch on a Ray cluster: to load the model, and to write on a few cores."""


@dataclass(frozen=True)
class LocalWriter:
    """Asks a local model for replies, a batch at a time; on a GPU where there is one."""

    model: str
    settings: Settings
    temperature: float

    def write(self, prompts: Iterator[Prompt], keep: Keep, spend: Spend, spent: Spent) -> bool:
        """Give each prompt's reply to `keep`, batch by batch. Always returns True: it is free.

        ProjectError where a model on a Ray cluster fails.
        """
        del spend, spent
        batches = self._batches(prompts)
        if self.settings.engine == "ray":
            for batch, replies in self._on_ray(batches):
                for place, reply in replies:
                    keep(batch[place], reply)
            return True
        for batch in batches:
            for place, reply in self.replies(batch):
                keep(batch[place], reply)
        return True

    def _batches(self, prompts: Iterator[Prompt]) -> Iterator[Sequence[Prompt]]:
        size = self.settings.llm_concurrency
        while window := list(islice(prompts, BATCHES_SORTED * size)):
            window.sort(key=lambda prompt: -len(prompt.messages()[-1]["content"]))
            for start in range(0, len(window), size):
                yield window[start : start + size]

    def _on_ray(
        self, batches: Iterator[Sequence[Prompt]]
    ) -> Iterator[tuple[Sequence[Prompt], list[tuple[int, Reply]]]]:
        """Batches with their replies as they come, from models that work side by side."""
        from embed_assets.resources.ray_workers import ray_models

        first = list(islice(batches, BATCHES_SORTED))
        if not first:
            return
        most = len(first) if len(first) < BATCHES_SORTED else MOST_MODELS
        with ray_models(most, SECONDS) as models:
            more = islice(batches, max(0, models.most_in_hand - len(first)))
            queue = deque((self, batch) for batch in (*first, *more))
            for (_, batch), replies in begun_again(models, answer, queue):
                queue.extend((self, more) for more in islice(batches, 1))
                yield batch, replies

    def replies(self, batch: Sequence[Prompt]) -> Iterator[tuple[int, Reply]]:
        """Places in a batch, and replies; those that can't be read are asked for again."""
        read, written = [0] * len(batch), [0] * len(batch)
        waiting = list(range(len(batch)))
        for reading in range(READINGS):
            for place, (text, sent, received) in zip(
                waiting, self._generate([batch[i] for i in waiting]), strict=True
            ):
                read[place] += sent
                written[place] += received
                last = reading == READINGS - 1 or not self.temperature
                if batch[place].entries(text) or last:
                    yield place, reply_now(text, read[place], written[place])
                    waiting = [i for i in waiting if i != place]
            if not waiting:
                return

    def _generate(self, batch: Sequence[Prompt]) -> list[tuple[str, int, int]]:
        """Text, input tokens and output tokens for each prompt."""
        import torch

        tokenizer, model, sort = self._loaded
        several = 1 if sort == "chat" else self.settings.questions_per_chunk
        inputs = tokenizer(
            [self._input(prompt) for prompt in batch],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._longest_input,
            add_special_tokens=sort != "chat",  # a chat template writes them itself
        ).to(model.device)
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": self.temperature, "top_p": 0.95}
            if self.temperature
            else {"do_sample": False, "num_beams": several}
        )
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                **sampling,
                num_return_sequences=several,
                max_new_tokens=self.settings.llm_max_tokens if sort == "chat" else LONGEST_QUESTION,
                pad_token_id=tokenizer.pad_token_id,
            )
        if sort != "text2text":
            output = output[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(output, skip_special_tokens=True)
        sent = inputs["attention_mask"].sum(dim=1).tolist()
        received = (output != tokenizer.pad_token_id).sum(dim=1).tolist()
        return [
            (
                texts[i] if sort == "chat" else _as_reply(texts[several * i : several * (i + 1)]),
                sent[i],
                sum(received[several * i : several * (i + 1)]),
            )
            for i in range(len(batch))
        ]

    def _input(self, prompt: Prompt) -> str:
        tokenizer, _, sort = self._loaded
        messages = prompt.messages()
        if sort == "chat":
            return tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        passage = json.loads(messages[-1]["content"])["passage"]
        return passage if sort == "text2text" else f"{passage}\n\nQuestion:"

    @cached_property
    def _longest_input(self) -> int:
        tokenizer, model, sort = self._loaded
        limit = getattr(model.config, "max_position_embeddings", None) or LONGEST_PASSAGE
        limit = min(limit, tokenizer.model_max_length)
        chat = self.settings.llm_max_tokens
        reply = {"chat": chat, "text": LONGEST_QUESTION, "text2text": 0}[sort]
        return max(limit - reply, limit // 2)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        """Tokenizer, model and its sort: chat, text or text2text."""
        import torch
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForSeq2SeqLM,
            AutoTokenizer,
        )

        machine = this_machine()
        try:
            config = AutoConfig.from_pretrained(self.model)
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model = kind.from_pretrained(
                self.model,
                dtype=torch.bfloat16 if machine.gpus else torch.float32,  # half the memory
                device_map="cuda" if machine.gpus else "cpu",
            )
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"EMBED_ASSETS_QUESTIONS: huggingface:{self.model} can't be loaded: "
                f"{one_line(str(error), 160)}"
            ) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if config.is_encoder_decoder:
            return tokenizer, model, "text2text"
        # What is to be continued stands at the end: pad, and cut what is too long, at the front.
        tokenizer.padding_side = tokenizer.truncation_side = "left"
        return tokenizer, model, "chat" if tokenizer.chat_template else "text"


_here: list[LocalWriter] = []
"""The writer whose model this worker has loaded."""


def answer(item: tuple[LocalWriter, Sequence[Prompt]]) -> list[tuple[int, Reply]]:
    """What `replies` gives for a batch; by a worker."""
    writer, batch = item
    if _here != [writer]:
        _here[:] = [writer]
    return list(_here[0].replies(batch))


def _as_reply(texts: Sequence[str]) -> str:
    """Bare questions in the shape of a reply."""
    lines = [text.strip().partition("\n")[0].strip() for text in texts]
    return json.dumps(
        {
            "questions": [
                {"kind": "question", "question": line, "answer": None, "answerable": True}
                for line in dict.fromkeys(lines)
                if len(line.split()) > 1
            ]
        },
        ensure_ascii=False,
    )
