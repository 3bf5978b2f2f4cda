"""What the recording scripts share: determinism, random tiny models, the published checkpoint form, small files."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def deterministic():
    """One thread and deterministic kernels, so that a second recording gives the same bytes on the same machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)


def versions():
    """The versions a fixture was recorded with, from requirements.txt's point of view: what is really installed."""
    import PIL
    import tokenizers

    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }


def fresh_dir(path):
    """Empty the directory `path` (or make it) and return it."""
    path = Path(path)
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def write_json(path, value):
    """Write indented JSON with a final newline, lists of numbers on one line. Floats keep all their digits."""
    Path(path).write_text(render_json(value, "") + "\n", encoding="utf-8")


def render_json(value, indent):
    """`value` as JSON text whose continuation lines start with `indent`."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{json.dumps(str(k), ensure_ascii=False)}: {render_json(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner + r for r in rows) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list, tuple, str)) for v in value):
        if len(json.dumps(value)) > 100 or any(isinstance(v, dict) for v in value):
            return "[\n" + ",\n".join(inner + render_json(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_tensors(path, tensors):
    """Write a name -> tensor mapping as safetensors, contiguous, on the CPU, with its own storage each."""
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(path))


def sha256_of(array):
    """SHA-256 (hex) of the little-endian bytes of an array, row major."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Models

#: Special token ids of the tiny models; they lie inside a vocabulary of 160 or more.
SPECIAL = {
    "bos_token_id": 150,
    "eos_token_id": 151,
    "vision_start_token_id": 152,
    "vision_end_token_id": 153,
    "vision_token_id": 154,
    "image_token_id": 155,
    "video_token_id": 156,
}


def published_name(name, model_type=None):
    """transformers' parameter name -> the name in the published checkpoints, which for Qwen3-VL is the same."""
    if model_type == "qwen3_vl":
        return name
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return name


def flat_config(text, vision, mrope_section, tied, model_type="qwen2_5_vl"):
    """A config.json in the flat layout of the published Qwen2.5-VL and Qwen2-VL checkpoints."""
    own = {
        "qwen2_5_vl": {"hidden_act": "silu", "out_hidden_size": text["hidden_size"], "tokens_per_second": 2},
        "qwen2_vl": {"hidden_size": text["hidden_size"]},
    }
    return {
        "architectures": [CLASSES[model_type][1].__name__],
        "attention_dropout": 0.0,
        **SPECIAL,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "max_window_layers": 70,
        "model_type": model_type,
        "sliding_window": 32768,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        **text,
        "vision_config": {
            "in_chans": 3,
            "model_type": model_type,
            "spatial_merge_size": 2,
            "spatial_patch_size": vision["patch_size"],
            "temporal_patch_size": 2,
            **own[model_type],
            **vision,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": mrope_section},
    }


def qwen3_vl_config(text, vision, mrope_section, tied):
    """A config.json of the published Qwen3-VL checkpoints, whose layout is nested."""
    rope = {"mrope_interleaved": True, "mrope_section": mrope_section, "rope_type": "default"}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": SPECIAL["bos_token_id"],
            "eos_token_id": SPECIAL["eos_token_id"],
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_position_embeddings": 4096,
            "model_type": "qwen3_vl_text",
            "rope_scaling": rope,
            "tie_word_embeddings": tied,
            "use_cache": True,
            **text,
        },
        "tie_word_embeddings": tied,
        "vision_config": {
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "initializer_range": 0.02,
            "model_type": "qwen3_vl",
            "out_hidden_size": text["hidden_size"],
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **vision,
        },
        **{k: v for k, v in SPECIAL.items() if k in ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")},
    }


def qwen2_config(text, tied):
    """A config.json of the published Qwen2.5 checkpoints, which read text alone."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": SPECIAL["bos_token_id"],
        "eos_token_id": SPECIAL["eos_token_id"],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "max_window_layers": 2,
        "model_type": "qwen2",
        "sliding_window": 4096,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        **text,
    }


def causal_config(model_type, text, tied):
    """A config.json of the published checkpoints of Llama ("llama") or Qwen3 ("qwen3"), which read text alone."""
    own = {"llama": {"mlp_bias": False, "pretraining_tp": 1}, "qwen3": {"use_sliding_window": False, "max_window_layers": 2}}
    return {
        "architectures": [classes_of({"model_type": model_type})[1].__name__],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": SPECIAL["bos_token_id"],
        "eos_token_id": SPECIAL["eos_token_id"],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "model_type": model_type,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "use_cache": True,
        **own[model_type],
        **text,
    }


#: transformers' configuration and model classes by `model_type`.
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "qwen2_vl": (transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration),
    "qwen3_vl": (transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration),
    "qwen2_5_vl": (transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration),
}


def classes_of(config_json):
    """transformers' configuration and model classes for a config.json."""
    return CLASSES[config_json["model_type"]]


def randomise(model, generator):
    """Random weights large enough for gradients to mean something: norms around 1, biases and matrices well off 0."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1 and ("norm" in name or "ln_q" in name) and name.endswith("weight"):
                p.copy_(1.0 + 0.2 * noise)
            elif p.ndim == 1:
                p.copy_(0.2 * noise)
            elif "embed_tokens" in name or "lm_head" in name:
                p.copy_(0.4 * noise)
            else:
                fan_in = p[0].numel()
                p.copy_(noise * (1.2 / fan_in**0.5))


def build_checkpoint(directory, config_json, seed, layout):
    """Write a random checkpoint into `directory` and return it as transformers loads it back.

    `layout` is "published" (flat config.json as given, `visual.*` / `model.*` names) or "nested" (config.json as the
    installed transformers writes it, weights under transformers' own module names `model.visual.*` /
    `model.language_model.*`, as found in checkpoints that were not renamed on saving). Loading must report no missing,
    unexpected or mismatched key, and give the very same weights.
    """
    config_class, model_class = classes_of(config_json)
    directory = Path(directory)
    with tempfile.TemporaryDirectory() as tmp:
        write_json(Path(tmp) / "config.json", config_json)
        config = config_class.from_pretrained(tmp)
    model = model_class(config).float().eval()
    randomise(model, torch.Generator().manual_seed(seed))
    if layout == "published":
        write_json(directory / "config.json", config_json)
        tensors = {published_name(k, config_json["model_type"]): v for k, v in model.named_parameters()}
        write_tensors(directory / "model.safetensors", tensors)
    else:
        model.config.architectures = config_json["architectures"]
        with tempfile.TemporaryDirectory() as tmp:
            model.save_pretrained(tmp)
            shutil.copy(Path(tmp) / "config.json", directory / "config.json")
        tied = config_json["tie_word_embeddings"]
        named = {k: v for k, v in model.named_parameters() if not (tied and k == "lm_head.weight")}
        write_tensors(directory / "model.safetensors", named)
    loaded, info = model_class.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    problems = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    assert not problems, f"{directory}: transformers does not load it cleanly: {problems}"
    for (name, a), (_, b) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(a, b), f"{directory}: {name} changed on the way through the file"
    return loaded.eval()


# ---------------------------------------------------------------------------------------------------------------------
# Sequences

class Seq:
    """One sequence: ids, where the response starts, and its images as (grid, pixel_values)."""

    def __init__(self, ids, response_start, images):
        self.ids, self.response_start, self.images = ids, response_start, images


def make_sequence(generator, patch_dim, merge, parts, response_len):
    """`parts` is a list of ints (that many random text tokens) and (h, w) pairs (an image of that patch grid)."""

    def text(n):
        return torch.randint(0, SPECIAL["bos_token_id"], (n,), generator=generator).tolist()

    ids, images = [], []
    for part in parts:
        if isinstance(part, int):
            ids += text(part)
        else:
            h, w = part
            tokens = h * w // merge**2
            ids += [SPECIAL["vision_start_token_id"]] + [SPECIAL["image_token_id"]] * tokens + [SPECIAL["vision_end_token_id"]]
            pixels = torch.randn(h * w, patch_dim, generator=generator)
            images.append(([1, h, w], pixels))
    start = len(ids)
    ids += text(response_len - 1) + [SPECIAL["eos_token_id"]]
    return Seq(ids, start, images)


def collate(sequences, pad_id=0):
    """Right-padded model inputs of a batch of `Seq`, with labels -100 outside the responses."""
    longest = max(len(s.ids) for s in sequences)
    ids = torch.full((len(sequences), longest), pad_id)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for i, s in enumerate(sequences):
        n = len(s.ids)
        ids[i, :n] = torch.tensor(s.ids)
        mask[i, :n] = 1
        labels[i, s.response_start : n] = ids[i, s.response_start : n]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    images = [image for s in sequences for image in s.images]
    if images:
        batch["pixel_values"] = torch.cat([p for _, p in images])
        batch["image_grid_thw"] = torch.tensor([g for g, _ in images])
        batch["mm_token_type_ids"] = (ids == SPECIAL["image_token_id"]).int() * mask.int()
    return batch
