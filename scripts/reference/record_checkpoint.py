"""Record a whole checkpoint directory, with tokenizer, template and preprocessor, and scored conversations.

Writes tests/fixtures/checkpoint/: the directory itself (`model/`), images, and `expected.json` in the form that
check_checkpoint.py reads, with transformers' own log-probabilities. Its vocabulary is larger than its tokenizer, as
the published models' is.
"""

import json
import shutil

from PIL import Image

import common
from check_checkpoint import check, encode_prompt, load, score
from checkpoint_files import write_processor_files
from common import FIXTURES, build_checkpoint, flat_config, fresh_dir, write_json

OUT = FIXTURES / "checkpoint"


def main():
    common.deterministic()
    directory = fresh_dir(OUT / "model")
    _, ids = write_processor_files(directory, min_pixels=784, max_pixels=9408)
    config = flat_config(
        {
            "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "vocab_size": 512,
            "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
            "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
            "vision_token_id": ids["<|vision_pad|>"], "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
        },
        {"depth": 3, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 14, "window_size": 56,
         "fullatt_block_indexes": [1]},
        [2, 1, 1], tied=True,
    )
    build_checkpoint(directory, config, 55, "published")
    for name in ("downscaled_by_max", "gray", "odd_up"):
        shutil.copy(FIXTURES / "processor" / "images" / f"{name}.png", OUT / f"{name}.png")
    conversations = [
        ("<image>Which tile belongs in each place?", ["odd_up.png"], "<answer>3 1 2 4</answer>", None),
        ("Compare <image> with <image>.", ["downscaled_by_max.png", "gray.png"], "<think>the sky</think>\n\n<answer>1</answer>", "Be brief."),
        ("你好, who are you?", [], "naïve café", None),
    ]
    model, tokenizer, processor = load(directory)
    rows = []
    for question, files, answer, system in conversations:
        prompt = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": question}]
        inputs = encode_prompt(processor, tokenizer, prompt, [Image.open(OUT / f) for f in files])
        response = tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
        all_ids = inputs["input_ids"][0].tolist() + response
        rows.append(
            {
                "messages": prompt + [{"role": "assistant", "content": answer}],
                "images": files,
                "ids": all_ids,
                "logprobs": score(model, inputs, all_ids, len(response)).tolist(),
            }
        )
    write_json(OUT / "expected.json", {"versions": common.versions(), "sequences": rows})
    print(check(directory, rows, OUT, 1e-6))
    # The check must be able to fail.
    for what, spoil in [
        ("log-probabilities", lambda s: s["logprobs"].__setitem__(0, s["logprobs"][0] * 1.01)),
        ("prompt ids", lambda s: s["ids"].__setitem__(3, s["ids"][3] + 1)),
        ("response ids", lambda s: s["ids"].__setitem__(-2, s["ids"][-2] + 1)),
    ]:
        bad = json.loads((OUT / "expected.json").read_text())
        spoil(bad["sequences"][0])
        try:
            check(directory, bad["sequences"], OUT, 1e-4)
        except AssertionError as error:
            assert what in str(error), f"wrong reason: {error}"
        else:
            raise SystemExit(f"check_checkpoint does not notice wrong {what}")
    print(f"{sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file()) // 1024} KiB")


if __name__ == "__main__":
    main()
