import pytest
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def told_texts():
    """Return a few texts, and a tokenizer of 40 words."""
    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{k}": k for k in range(2, 40)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    texts = [" ".join(f"w{2 + (k * j) % 38}" for j in range(1, 4 + k)) for k in range(9)]
    return Dataset.from_dict({"text": texts}), made
