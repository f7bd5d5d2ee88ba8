"""LoRA on a small Llama with a classification head: correct it, save the adapter, load it with peft alone."""

import torch
from datasets import ClassLabel, Dataset, Features, Value
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast, set_seed

import hf_midrange as hm

set_seed(0)
words = ["[PAD]", "[UNK]", "good", "bad", "fine", "poor", "film", "book"]
vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="[PAD]", unk_token="[UNK]")
base = LlamaForSequenceClassification(
    LlamaConfig(vocab_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                pad_token_id=0, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
)  # fmt: skip
base.save_pretrained("base")
model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4))

features = Features({"text": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
texts = [f"{kind} {thing}" for kind in ("bad", "poor", "good", "fine") for thing in ("film", "book")] * 25
ds = Dataset.from_dict({"text": texts, "label": [int("good" in t or "fine" in t) for t in texts]}, features=features)
ds = hm.extract(ds, model, tokenizer)
head = hm.retrain_head(hm.curate(ds, strategy="class-balanced"), model)
model = head.merge_into(model)
model.save_pretrained("adapter")

fresh = PeftModel.from_pretrained(LlamaForSequenceClassification.from_pretrained("base"), "adapter").eval()
with torch.no_grad():
    logits = fresh(**tokenizer(texts[:8], return_tensors="pt", padding=True)).logits
print("right:", (logits.argmax(1).numpy() == ds["label"][:8]).mean())
