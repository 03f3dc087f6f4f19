"""Names of modules as words, and what the words mean.

The tables hold words of the field: abbreviations and synonyms that authors of models use for the same thing, and roles
that exclude each other. They name no library and no model.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Each line is one meaning; its first word stands for all.
_SYNONYMS = """
attention attn attentions mha selfattention sa
norm ln layernorm bn batchnorm groupnorm gn rmsnorm rms normalization layrnorm
conv convolution convolutions conv1d conv2d conv3d
mlp ffn ff feedforward ffw
query q queries wq xq
key k keys wk xk
value v values wv xv
qkv kqv wqkv
proj projection project projector projections
out output o wo
dense linear fc lin
embed embedding embeddings emb embedder embeds te
token tok tokens word words wte
position pos positional positions wpe
class cls
downsample shortcut skip down downsampling
patch patches
block blocks layer layers resblocks h
stage stages
encoder enc
decoder dec
head heads classifier lm unembed score logits cls_head
distill dist distillation distilled
image img visual vision pixel
text txt language
gate w1
up w3
temporal time temp
relative rel
expand expansion
reduce reduction squeeze
bias biases
table tables
index idx
pool pooler pooling
mask masked
scale gamma lambda scaling
predict predictor prediction predictions pred
box bbox boxes
label labels
after post
before pre
cross encdec
ln_f final
stem root
upsample upsampling upsampler
residual res
depthwise dw
pointwise pw
model module
quantizer quantizers
codebook codebooks
coder codec
codeword codewords
feature features feat
recurrent rnn lstm
""".strip()

# Pairs of compound names that mean one thing, replaced before a name is split.
_COMPOUNDS = (
    ("post_attention_", "after_"),
    ("input_layernorm", "before_norm"),
    ("layer_norm", "norm"),
    ("layernorm", "norm"),
    ("layrnorm", "norm"),
    ("batch_norm", "norm"),
    ("batchnorm", "norm"),
    ("group_norm", "norm"),
    ("groupnorm", "norm"),
    ("rmsnorm", "norm"),
    ("rms_norm", "norm"),
    ("feed_forward", "mlp"),
    ("feedforward", "mlp"),
    ("query_key_value", "qkv"),
    ("queries_keys_values", "qkv"),
    ("in_proj", "qkv"),
    ("keys_values", "kv"),
    ("key_value", "kv"),
    ("lm_head", "head"),
    ("self_attention", "self_attn"),
    ("selfattention", "self_attn"),
    ("encoder_attn", "cross_attn"),
    ("encoder_attention", "cross_attn"),
    ("multihead_attn", "mha"),
    ("encdec", "cross"),
    ("bbox", "box"),
    ("w1", "gate"),
    ("w2", "down_proj"),
    ("w3", "up"),
    ("layer_scale", "scale"),
    ("layerscale", "scale"),
)

# Roles of which a tensor has one; two different ones speak against a pair.
EXCLUSIVE = (
    ("query", "key", "value", "out", "qkv", "kv"),
    ("gate", "up"),
    ("encoder", "decoder"),
    ("image", "text", "audio"),
    ("left", "right"),
    ("top", "bottom"),
    ("self", "cross"),
    ("forward", "reverse", "backward"),
    ("horizontal", "vertical"),
    ("width", "height"),
    ("mean", "var"),
    ("class", "position", "mask", "patch"),
    ("norm", "conv"),
    ("norm", "dense"),
    ("norm", "proj"),
    ("norm", "query", "key", "value", "qkv"),
    ("box", "class"),
    ("spatial", "temporal"),
    ("start", "end"),
    ("query", "position"),
    ("row", "col"),
    ("distill", "class"),
    ("reference", "offset"),
    ("sampling", "attention_weights"),
    ("target", "source"),
    ("before", "after"),
    ("expand", "reduce"),
    ("depthwise", "pointwise"),
)

MEANING = {word: line.split()[0] for line in _SYNONYMS.splitlines() for word in line.split()}
VOCABULARY = frozenset(MEANING.values()).union(*EXCLUSIVE)

DIGITS = re.compile(r"\d{1,18}")  # int() refuses what is some thousands long
_COMPOUND = re.compile("|".join(long for long, _ in _COMPOUNDS))
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=65536)
def split(segment: str) -> tuple[str, ...]:
    """Return the words and numbers of one segment: ``self_attn2`` is self, attention, 2."""
    text = segment
    low = text.lower()
    if _COMPOUND.search(low):
        for long, short in _COMPOUNDS:
            if long in low:
                text = low = low.replace(long, short)
    return tuple(MEANING.get(piece.lower(), piece.lower()) for piece in _PIECE.findall(text))


@lru_cache(maxsize=65536)
def words(segment: str) -> tuple[str, ...]:
    """Return the words of a segment without its numbers."""
    return tuple(word for word in split(segment) if not word.isdigit())


@lru_cache(maxsize=65536)
def stem(segment: str) -> str:
    """Return a segment with its numbers taken out: ``layer4`` is ``layer#``."""
    return re.sub(r"\d+", "#", segment)


def number(segment: str) -> int | None:
    """Return the last number in a segment, or None."""
    found = DIGITS.findall(segment)
    return int(found[-1]) if found else None
