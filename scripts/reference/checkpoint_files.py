"""The files of a checkpoint directory that stand between text with images and token ids: a small byte-level BPE
tokenizer with Qwen's special tokens, its configuration with the published chat template, and the preprocessor's."""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from common import write_json

#: Qwen2's pre-tokenizer split, as in the published tokenizer.json.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: Added tokens in the order of the published tokenizer (ids follow the BPE's); the flag is `special`.
ADDED = [
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True), ("<|box_start|>", True), ("<|box_end|>", True), ("<|quad_start|>", True),
    ("<|quad_end|>", True), ("<|vision_start|>", True), ("<|vision_end|>", True), ("<|vision_pad|>", True),
    ("<|image_pad|>", True), ("<|video_pad|>", True), ("<tool_call>", False), ("</tool_call>", False),
]

#: The chat template published with Qwen2.5-VL.
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

#: What the BPE is trained on: sentences of the project's field, numbers, code, and a few other scripts.
CORPUS = [
    "The image is cut into a grid of tiles and the tiles are shuffled. Which tile belongs in each place?",
    "Answer with the numbers of the tiles in reading order, from left to right and from top to bottom.",
    "<think>The sky belongs at the top, so tile 3 comes first.</think><answer>3 1 2 4</answer>",
    "system user assistant You are a helpful assistant. Describe the image. Picture 1: Picture 2:",
    "It's what we'll say, they've said, I'm sure you're right, he'd know, don't they?",
    "def solve(grid):\n    return [int(x) for x in grid.split()]\n\n\n{\"bbox_2d\": [10, 20, 30, 40]}",
    "Größe, naïve café, Ångström, déjà vu. Привет, мир. 你好，世界。こんにちは 안녕하세요 مرحبا नमस्ते",
    "0 1 2 3 4 5 6 7 8 9 10 123 3.14 1e-6 100% $5 (a) [b] {c} <d> a/b a-b a_b x=y; p && q || !r",
] * 4


#: Special tokens of Llama 3, and the chat template published with Llama 3.2 without its parts for tools.
LLAMA_ADDED = [
    (token, True) for token in (
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
    )
]
LLAMA_CHAT_TEMPLATE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def write_llama_files(directory):
    """Tokenizer, chat template and generation settings in the form of Llama 3's."""
    directory = Path(directory)
    tokenizer = build_tokenizer(added=LLAMA_ADDED)
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {t: tokenizer.token_to_id(t) for t, _ in LLAMA_ADDED}
    write_json(
        directory / "tokenizer_config.json",
        {
            "added_tokens_decoder": {
                str(ids[t]): {
                    "content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": s,
                }
                for t, s in LLAMA_ADDED
            },
            "bos_token": "<|begin_of_text|>",
            "chat_template": LLAMA_CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": True,
            "eos_token": "<|eot_id|>",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 131072,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    eos = [ids["<|end_of_text|>"], ids["<|eom_id|>"], ids["<|eot_id|>"]]
    write_json(directory / "generation_config.json", {"bos_token_id": ids["<|begin_of_text|>"], "eos_token_id": eos})
    return ids


def build_tokenizer(vocab_size=480, added=ADDED):
    """The tokenizer; its ids depend on nothing but this file and the pinned `tokenizers`."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in added])
    return tokenizer


def write_processor_files(directory, min_pixels=3136, max_pixels=12845056):
    """All files of a published checkpoint directory but config.json and the weights."""
    directory = Path(directory)
    tokenizer = build_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {t: tokenizer.token_to_id(t) for t, _ in ADDED}
    write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(ids[t]): {
                    "content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": s,
                }
                for t, s in ADDED
            },
            "additional_special_tokens": [t for t, s in ADDED[1:] if s],
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    # transformers' processor has no template of its own without this file; the tokenizer reads the one above.
    write_json(directory / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_json(
        directory / "preprocessor_config.json",
        {
            "min_pixels": min_pixels,
            "max_pixels": max_pixels,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
    )
    write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": ids["<|endoftext|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "do_sample": True,
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "repetition_penalty": 1.05,
            "temperature": 0.000001,
        },
    )
    return tokenizer, ids
