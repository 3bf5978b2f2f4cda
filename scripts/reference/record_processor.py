"""Record what stands between text with images and the model's inputs.

Writes tests/fixtures/processor/: `checkpoint/` (tokenizer, template, preprocessor), `tokenizer.json` (ids of awkward
strings), `chat.json` (rendered conversations), `images/` and `images.json` (preprocessing), `smart_resize.json`,
`rope_index.json`, `prompts.json` (everything together). Each JSON says what its fields mean under "keys".
"""

import json
import math
import random

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from transformers import AutoTokenizer, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

import common
from checkpoint_files import CHAT_TEMPLATE, write_llama_files, write_processor_files
from common import FIXTURES, fresh_dir, sha256_of, write_json

OUT = FIXTURES / "processor"

STRINGS = [
    "", " ", "  ", "\n", "\n\n\n", " \n ", "\t\tx", "a", "hello", " hello", "hello ", "hello  world", "Hello, World!",
    "it's IT'S we'll WE'LL I'm you're they've he'd don't 'tis", "1234567890", "3 1 2 4", "12 apples", "x=1;y=2",
    "<answer>3 1 2 4</answer>", "<think>\nfirst\n</think>\n\n<answer>1 2</answer>", "a\r\nb\rc\n", "...!!!???", " ...\n\n  x",
    "naïve café", "e\u0301 vs \u00e9", "\u1e9b\u0323", "Привет, мир!", "你好，世界", "日本語 テスト", "안녕", "مرحبا بالعالم",
    "नमस्ते १२३", "٣ ١ ٢", "３　１　２", "😀 👩‍👩‍👧‍👦 🇩🇪", "a\u00a0b\u2003c\u200bd", "\ufeffbom", "\u0000\u0001\u007f",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|> <|im_end|>", "a<|image_pad|><|image_pad|>b", "<|im_start", "<tool_call>{}</tool_call>",
    "<|vision_start|><|image_pad|><|vision_end|>What?", "<IMAGE> <image>", "x" * 100, "ab " * 30, "\\n \\u00e9 \"quoted\" 'single'",
    "ⅣⅧ²³½", "ǅ ß ẞ İ ı ſ", "word" + " " * 20 + "word", "\u2028\u2029\u0085",
]


def record_tokenizer():
    raw, ids = write_processor_files(fresh_dir(OUT / "checkpoint"))
    auto = AutoTokenizer.from_pretrained(OUT / "checkpoint")
    rows = []
    for text in STRINGS:
        mine = raw.encode(text, add_special_tokens=False).ids
        assert auto(text, add_special_tokens=False)["input_ids"] == mine, f"AutoTokenizer differs on {text!r}"
        rows.append(
            {
                "text": text,
                "ids": mine,
                "decoded": auto.decode(mine, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            }
        )
    # Ids cut in the middle of a character: what decoding makes of incomplete UTF-8.
    for text in ["你好", "😀"]:
        cut = raw.encode(text).ids[:-1]
        rows.append({"text": None, "ids": cut, "decoded": auto.decode(cut, skip_special_tokens=True)})
    write_json(
        OUT / "tokenizer.json",
        {
            "keys": {
                "strings[].ids": "ids of `text` without added special tokens (special tokens in the text are recognised); `text` null: decode only",
                "strings[].decoded": "decode(ids, skip_special_tokens=True)",
                "vocab_size": "entries of the BPE and added tokens",
            },
            "versions": common.versions(),
            "vocab_size": raw.get_vocab_size(),
            "special": ids,
            "strings": rows,
        },
    )
    return auto


def image(**extra):
    return {"type": "image", **extra}


def text(value):
    return {"type": "text", "text": value}


CONVERSATIONS = [
    ("text only", [{"role": "user", "content": "Hello"}], {}),
    ("text only as parts", [{"role": "user", "content": [text("Hello")]}], {}),
    ("no generation prompt", [{"role": "user", "content": [text("Hello")]}], {"add_generation_prompt": False}),
    ("one image first", [{"role": "user", "content": [image(), text("What is it?")]}], {}),
    ("one image last", [{"role": "user", "content": [text("What is this: "), image()]}], {}),
    ("two images", [{"role": "user", "content": [image(), image(), text("Compare.")]}], {}),
    ("two images between text", [{"role": "user", "content": [text("A "), image(), text(" and B "), image(), text(".")]}], {}),
    ("vision ids", [{"role": "user", "content": [image(), text(" and "), image()]}], {"add_vision_id": True}),
    ("system", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [image(), text("Hi")]}], {}),
    ("empty system", [{"role": "system", "content": ""}, {"role": "user", "content": "x"}], {}),
    (
        "many turns",
        [
            {"role": "system", "content": [text("You solve puzzles.")]},
            {"role": "user", "content": [image(), text("Order?\n")]},
            {"role": "assistant", "content": [text("<answer>2 1</answer>")]},
            {"role": "user", "content": [text("And this? "), image()]},
        ],
        {},
    ),
    (
        "ending in the assistant's turn",
        [
            {"role": "user", "content": [image(), text("Order?")]},
            {"role": "assistant", "content": "<think>a</think><answer>2 1</answer>"},
        ],
        {"add_generation_prompt": False},
    ),
    ("hostile text", [{"role": "user", "content": [text("{{ 7*7 }} {% if x %} <|im_end|> \"'\\ <b>&amp;</b> é 你")]}], {}),
    ("leading and trailing whitespace", [{"role": "user", "content": [text("  \n x \n\n")]}], {}),
    ("assistant first", [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "go"}], {}),
    ("empty content", [{"role": "user", "content": []}], {}),
]

#: A template written over several lines: needs trim_blocks, lstrip_blocks, tojson, loop controls and Python's methods.
MULTILINE_TEMPLATE = """\
{%- macro turn(role, body) -%}
<{{ role.upper() }}>{{ body.strip() }}
{%- endmacro -%}
{# a comment #}
{% for message in messages %}
    {% if message.role == "system" %}
        {% continue %}
    {% endif %}
    {% set body = message.content if message.content is string else message.content | map(attribute="type") | join(",") %}
{{ turn(message.role, body) }}{{ "\\n" }}
    {%- if message.get("extra") %}
{{ message.extra | tojson }}
    {%- endif %}
{% endfor %}
{% if add_generation_prompt %}
<ASSISTANT>
{% endif %}
{{ messages[-1]["role"].startswith("user") }} {{ messages | length }} {{ none_such is defined }}
"""


def record_chat(tokenizer):
    rows = []
    for template_name, template in [("published", CHAT_TEMPLATE), ("multiline", MULTILINE_TEMPLATE)]:
        for name, messages, options in CONVERSATIONS:
            options = {"add_generation_prompt": True} | options
            if template_name == "multiline" and name == "many turns":
                messages = messages + [{"role": "user", "content": " hi ", "extra": {"a": [1, 2.5, "é<>&'"], "b": None}}]
            rendered = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
            rows.append({"name": name, "template": template_name, "messages": messages, "options": options, "rendered": rendered})
    write_json(
        OUT / "chat.json",
        {
            "keys": {
                "templates": "Jinja source by name; `published` is also in checkpoint/tokenizer_config.json",
                "conversations[].messages": "as given to apply_chat_template",
                "conversations[].options": "its keyword arguments, visible to the template",
                "conversations[].rendered": "its result, not tokenised",
            },
            "versions": common.versions(),
            "templates": {"published": CHAT_TEMPLATE, "multiline": MULTILINE_TEMPLATE},
            "conversations": rows,
        },
    )


def picture(height, width, kind, seed):
    """A deterministic RGB picture that compresses well but is not smooth everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "checker":
        board = ((x // 3 + y // 2) % 2 * 255).astype(np.uint8)
        return np.stack([board, 255 - board, board], -1)
    waves = [
        127.5 + 127.5 * np.sin(x / (width / (2 + c)) * 3.1 + y / (height / (3 - c * 0.7)) * 2.3 + seed + c) for c in range(3)
    ]
    picture = np.stack(waves, -1)
    if kind == "edges":
        picture[height // 4 : height // 2, width // 5 : width // 2] = [255, 0, 40]
        picture[:, 2 * width // 3 : 2 * width // 3 + 2] = 0
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


#: name, (height, width), kind, min_pixels, max_pixels, PNG mode
IMAGES = [
    ("exact", (56, 84), "noise", 3136, 12845056, "RGB"),
    ("one_pixel", (1, 1), "noise", 3136, 12845056, "RGB"),
    ("thin_upscaled", (1, 100), "noise", 3136, 12845056, "RGB"),
    ("tall_and_thin", (190, 2), "checker", 784, 12845056, "RGB"),
    ("odd_up", (37, 23), "noise", 12544, 12845056, "RGB"),
    ("half_even_down", (70, 42), "edges", 784, 12845056, "RGB"),
    ("half_even_up", (42, 98), "checker", 784, 12845056, "RGB"),
    ("rounds_to_zero", (13, 60), "noise", 784, 12845056, "RGB"),
    ("downscaled_by_max", (213, 301), "edges", 784, 9408, "RGB"),
    ("wide_downscaled_to_one_row", (20, 900), "edges", 784, 12544, "RGB"),
    ("large_checker_downscaled", (240, 200), "checker", 784, 12544, "RGB"),
    ("slight_upscale", (55, 83), "noise", 784, 12845056, "RGB"),
    ("gray", (60, 50), "edges", 784, 12845056, "L"),
    ("with_alpha", (40, 44), "edges", 784, 12845056, "RGBA"),
    ("palette", (40, 44), "edges", 784, 12845056, "P"),
]

#: Whose pixel_values are kept whole; the others as a hash.
COMPLETE = ("one_pixel", "half_even_down")


def unpatchify(patches, grid, patch, merge, temporal):
    """[n, 3*t*p*p] in merge order -> [H, W, 3] and check that both temporal copies are equal."""
    _, gh, gw = grid
    a = patches.reshape(gh // merge, gw // merge, merge, merge, 3, temporal, patch, patch)
    assert (a[:, :, :, :, :, 0] == a[:, :, :, :, :, 1]).all()
    a = a[:, :, :, :, :, 0].transpose(0, 2, 5, 1, 3, 6, 4)
    return np.ascontiguousarray(a.reshape(gh * patch, gw * patch, 3))


def record_images():
    directory = fresh_dir(OUT / "images")
    rows, tensors = [], {}
    for i, (name, (h, w), kind, lo, hi, mode) in enumerate(IMAGES):
        array = picture(h, w, kind, 100 + i)
        pil = Image.fromarray(array)
        if mode == "RGBA":
            alpha = Image.fromarray((np.arange(h * w).reshape(h, w) % 256).astype(np.uint8))
            pil.putalpha(alpha)
        elif mode != "RGB":
            pil = pil.convert(mode)
        pil.save(directory / f"{name}.png", optimize=True)
        pil = Image.open(directory / f"{name}.png")
        assert pil.mode == mode
        processor = Qwen2VLImageProcessorPil(min_pixels=lo, max_pixels=hi)
        raw = processor(pil, do_rescale=False, do_normalize=False, return_tensors="np")
        out = processor(pil, return_tensors="np")
        grid = out["image_grid_thw"][0].tolist()
        resized = unpatchify(raw["pixel_values"], grid, 14, 2, 2)
        assert (resized == np.rint(resized)).all() and resized.min() >= 0 and resized.max() <= 255
        Image.fromarray(resized.astype(np.uint8)).save(directory / f"{name}.resized.png", optimize=True)
        pixels = out["pixel_values"]
        assert pixels.dtype == np.float32
        row = {
            "name": name, "file": f"{name}.png", "mode": mode, "size": [h, w], "min_pixels": lo, "max_pixels": hi,
            "resized": f"{name}.resized.png", "resized_size": list(resized.shape[:2]), "grid_thw": grid,
            "shape": list(pixels.shape), "sha256": sha256_of(pixels), "first": [float(v) for v in pixels.reshape(-1)[:64]],
            "complete": name in COMPLETE,
        }
        if row["complete"]:
            tensors[name] = pixels
        rows.append(row)
    # Every value a channel can take: the whole of rescaling and normalisation.
    levels = np.arange(256, dtype=np.uint8)
    canvas = np.zeros((28, 56, 3), np.uint8)
    canvas.reshape(-1, 3)[:256] = levels[:, None]
    processor = Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=12845056)
    flat = processor(Image.fromarray(canvas), return_tensors="np")
    values = unpatchify(flat["pixel_values"], flat["image_grid_thw"][0].tolist(), 14, 2, 2).reshape(-1, 3)[:256].T
    tensors["normalised_levels"] = np.ascontiguousarray(values)
    save_file(tensors, str(OUT / "images.safetensors"))
    write_json(
        OUT / "images.json",
        {
            "keys": {
                "images[].file": "input PNG in images/",
                "images[].mode": "its PIL mode; made RGB by PIL's convert (alpha dropped)",
                "images[].size": "[height, width]",
                "images[].resized": "PNG of the image after the bicubic resize (u8, exact)",
                "images[].grid_thw": "patch grid [t, h, w]",
                "images[].shape": "of pixel_values, [t*h*w, 3*2*14*14]",
                "images[].sha256": "of the little-endian f32 bytes of pixel_values",
                "images[].first": "its first 64 values (decimal of the f32)",
                "images[].complete": "whether images.safetensors holds all of pixel_values under this name",
                "images.safetensors:normalised_levels": "f32 [3, 256]: normalised value of each channel for each u8 level",
            },
            "versions": common.versions(),
            "processor": "Qwen2VLImageProcessorPil",
            "images": rows,
        },
    )


def record_smart_resize():
    rng = random.Random(5)
    queries = [
        (1, 1, 28, 3136, 12845056), (14, 14, 28, 784, 12845056), (42, 42, 28, 784, 12845056), (70, 70, 28, 784, 12845056),
        (98, 126, 28, 784, 12845056), (13, 13, 28, 784, 12845056), (1, 200, 28, 3136, 12845056), (1, 201, 28, 3136, 12845056),
        (201, 1, 28, 3136, 12845056), (400, 2, 28, 3136, 12845056), (401, 2, 28, 3136, 12845056), (2, 401, 28, 784, 784),
        (40000, 40000, 28, 3136, 12845056), (3000, 4000, 28, 3136, 1003520), (28, 28, 28, 3136, 12845056),
        (10000, 50, 28, 784, 784), (480, 640, 28, 200704, 1003520), (333, 500, 28, 3136, 12845056),
        (56, 56, 28, 3136, 3136), (57, 57, 28, 3136, 3136), (84, 84, 28, 3136, 3136), (16, 48, 32, 1024, 65536),
    ]
    for _ in range(240):
        factor = rng.choice([28, 28, 28, 32, 8, 4])
        low = rng.choice([factor**2, 4 * factor**2, 3136, 200704])
        high = rng.choice([low, 16 * factor**2, 1003520, 12845056])
        if high < low:
            low, high = high, low
        h = int(math.exp(rng.uniform(0, math.log(5000))))
        w = int(math.exp(rng.uniform(0, math.log(5000))))
        if rng.random() < 0.3:  # right at the rounding edge
            h, w = factor // 2 * rng.randrange(1, 40, 2), factor // 2 * rng.randrange(1, 40, 2)
        queries.append((h, w, factor, low, high))
    rows = []
    for h, w, factor, low, high in queries:
        try:
            result = list(smart_resize(h, w, factor, low, high))
        except ValueError:
            result = None
        rows.append([h, w, factor, low, high, result])
    (OUT / "smart_resize.json").write_text(
        json.dumps({"keys": "rows of [height, width, factor, min_pixels, max_pixels, [height, width] or null for an error]"})[:-1]
        + ', "rows": [\n' + ",\n".join(json.dumps(r) for r in rows) + "\n]}\n"
    )


def record_rope_index():
    config = json.loads((FIXTURES / "model" / "one_image_tied" / "config.json").read_text())
    model = Qwen2_5_VLModel(Qwen2_5_VLConfig.from_pretrained(FIXTURES / "model" / "one_image_tied"))
    image_id, start, end = config["image_token_id"], config["vision_start_token_id"], config["vision_end_token_id"]
    cases = [
        [5], [(2, 2)], [3, (4, 6), 5], [(4, 6)], [3, (10, 2), 0, (2, 14), 4], [1, (6, 6), 1, (6, 6), 1, (2, 2), 9],
        [2, (16, 16), 2], [40, (2, 30), 1],
    ]
    rows = []
    for parts in cases:
        ids, grids = [], []
        for part in parts:
            if isinstance(part, int):
                ids += [7] * part
            else:
                h, w = part
                ids += [start] + [image_id] * (h * w // 4) + [end]
                grids.append([1, h, w])
        batch = torch.tensor([ids])
        if grids:
            positions, delta = model.get_rope_index(
                batch, mm_token_type_ids=(batch == image_id).int(), image_grid_thw=torch.tensor(grids)
            )
            positions, delta = positions[:, 0].tolist(), delta.item()
        else:
            positions, delta = [list(range(len(ids)))] * 3, 0
        rows.append({"ids": ids, "grids": grids, "positions": positions, "delta": delta})
    header = {
        "keys": {
            "image_token_id": "id of the image placeholder; merge size is 2",
            "rows[].grids": "patch grid [t, h, w] of each image",
            "rows[].positions": "[3][len]: temporal, height, width",
            "rows[].delta": "max(positions) + 1 - len: position of a following token n is n + delta on all three axes",
        },
        "image_token_id": image_id,
    }
    (OUT / "rope_index.json").write_text(
        json.dumps(header)[:-1] + ', "rows": [\n' + ",\n".join(json.dumps(r) for r in rows) + "\n]}\n"
    )


def record_prompts(tokenizer):
    images = Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=9408)
    processor = Qwen2_5_VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE
    )
    cases = [
        ([{"role": "user", "content": "<image>What is it?"}], ["exact.png"]),
        ([{"role": "user", "content": "First <image> then\n<image>."}], ["downscaled_by_max.png", "half_even_down.png"]),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], []),
        (
            [
                {"role": "user", "content": "<image><image>Order?"},
                {"role": "assistant", "content": "<answer>2 1</answer>"},
                {"role": "user", "content": "And <image>?"},
            ],
            ["odd_up.png", "exact.png", "gray.png"],
        ),
    ]
    rows = []
    for messages, files in cases:
        parts = [{"role": m["role"], "content": split_placeholders(m["content"])} for m in messages]
        rendered = processor.apply_chat_template(parts, add_generation_prompt=True, tokenize=False)
        pictures = [Image.open(OUT / "images" / f) for f in files]
        out = processor(text=[rendered], images=pictures or None, return_tensors="np")
        rows.append(
            {
                "messages": messages,
                "images": files,
                "rendered": rendered,
                "ids": out["input_ids"][0].tolist(),
                "grids": out["image_grid_thw"].tolist() if pictures else [],
                "pixel_values_sha256": sha256_of(out["pixel_values"]) if pictures else None,
            }
        )
    write_json(
        OUT / "prompts.json",
        {
            "keys": {
                "min_pixels, max_pixels": "to use in place of checkpoint/preprocessor_config.json's",
                "rows[].messages": "turns; each `<image>` in a content stands for the next of `images`, files of images/",
                "rows[].rendered": "chat template with generation prompt",
                "rows[].ids": "input ids with every image placeholder expanded",
                "rows[].pixel_values_sha256": "of the f32 pixel values of all images, one after another",
            },
            "versions": common.versions(),
            "min_pixels": 784,
            "max_pixels": 9408,
            "rows": rows,
        },
    )


def record_llama():
    """Prompts and responses in Llama 3's chat format, whose turns end with `<|eot_id|>`."""
    directory = fresh_dir(OUT / "llama")
    special = write_llama_files(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    rows = []
    for messages, response in [
        ([{"role": "user", "content": "Which tile comes first?"}], "<answer>3 1 2 4</answer>"),
        ([{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "naïve café, 2 + 2?"}], "4"),
        (
            [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}, {"role": "user", "content": "And\n\nthen?"}],
            "Three,\n then four.",
        ),
    ]:
        # jigsaw has no date: templates that know `strftime_now` would write today's.
        render = lambda turns, **options: tokenizer.apply_chat_template(turns, date_string="26 Jul 2024", **options)
        ids = render(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        whole = render(messages + [{"role": "assistant", "content": response}], tokenize=True, return_dict=False)
        rows.append(
            {
                "messages": messages,
                "rendered": render(messages, add_generation_prompt=True, tokenize=False),
                "ids": ids,
                "response": response,
                "response_ids": whole[len(ids) :],
            }
        )
        assert whole[: len(ids)] == ids
    write_json(
        OUT / "llama.json",
        {
            "keys": {
                "special": "ids of the special tokens of llama/",
                "rows[].ids": "input ids of the prompt, rendered with the generation prompt",
                "rows[].response_ids": "what follows them where the conversation goes on with the response",
            },
            "versions": common.versions(),
            "special": special,
            "rows": rows,
        },
    )


def split_placeholders(content):
    """A content string with `<image>` placeholders -> transformers' list of parts (empty text left out)."""
    parts = []
    for i, piece in enumerate(content.split("<image>")):
        if i:
            parts.append(image())
        if piece:
            parts.append(text(piece))
    return parts


def main():
    common.deterministic()
    fresh_dir(OUT)
    tokenizer = record_tokenizer()
    record_chat(tokenizer)
    record_images()
    record_smart_resize()
    record_rope_index()
    record_prompts(tokenizer)
    record_llama()
    for f in sorted(OUT.iterdir()):
        size = sum(g.stat().st_size for g in f.iterdir()) if f.is_dir() else f.stat().st_size
        print(f"{f.name}: {size // 1024} KiB")


if __name__ == "__main__":
    main()
