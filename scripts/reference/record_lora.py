"""Record adapters that peft made and wrote, for the model of tests/fixtures/checkpoint: log-probabilities and gradients with them.

Writes tests/fixtures/lora/<case>/: the directory that `save_pretrained` of peft writes (without its README), `expected.json` with the
log-probabilities of the conversations of tests/fixtures/checkpoint/expected.json, and `gradients.safetensors` with the gradient of every
matrix of the adapter for the mean negative log-probability of the first conversation's response.
"""

import json

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

import common
from check_checkpoint import encode_prompt, load

CASES = {
    # Ends of names, which peft looks for in the vision tower too.
    "names": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "all_linear_rslora": {
        "r": 3,
        "lora_alpha": 5,
        "use_rslora": True,
        "target_modules": "all-linear",
        "rank_pattern": {"o_proj": 2},
        "alpha_pattern": {"k_proj": 9, r"layers\.\d+\.mlp\.up_proj": 1.5},
    },
}


def main():
    common.deterministic()
    root = common.FIXTURES / "checkpoint"
    sequences = json.loads((root / "expected.json").read_text(encoding="utf-8"))["sequences"]
    common.fresh_dir(common.FIXTURES / "lora")
    for number, (name, settings) in enumerate(CASES.items()):
        out = common.fresh_dir(common.FIXTURES / "lora" / name)
        model, tokenizer, processor = load(root / "model")
        model.name_or_path = "../../checkpoint/model"
        model.config._name_or_path = "../../checkpoint/model"
        peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", bias="none", **settings)).eval()
        generator = torch.Generator().manual_seed(number + 1)
        with torch.no_grad():
            for key, p in peft_model.named_parameters():
                if "lora_B" in key:
                    p.copy_(0.3 * torch.randn(p.shape, generator=generator))
                elif "lora_A" in key:
                    p.copy_(0.5 * torch.randn(p.shape, generator=generator))
        logprobs = []
        for sequence in sequences:
            images = [Image.open(root / f) for f in sequence["images"]]
            inputs = encode_prompt(processor, tokenizer, sequence["messages"][:-1], images)
            n = len(sequence["logprobs"])
            batch = {"input_ids": torch.tensor([sequence["ids"]])}
            batch |= {k: inputs[k] for k in ("pixel_values", "image_grid_thw") if k in inputs}
            if images:
                batch["mm_token_type_ids"] = (batch["input_ids"] == model.config.image_token_id).int()
            model.model.rope_deltas = None
            logits = peft_model(**batch, use_cache=False).logits[0, -n - 1 : -1]
            found = logits.log_softmax(-1).gather(1, batch["input_ids"][0, -n:][:, None])[:, 0]
            if not logprobs:
                peft_model.zero_grad()
                (-found.mean()).backward()
                grads = {k: p.grad.clone() for k, p in peft_model.named_parameters() if "lora_" in k}
            logprobs.append(found.detach().tolist())
        assert all(g.abs().max() > 0 for g in grads.values())
        peft_model.save_pretrained(out)
        (out / "README.md").unlink(missing_ok=True)
        common.write_tensors(out / "gradients.safetensors", {k.replace(".default", ""): g for k, g in grads.items()})
        import peft

        versions = common.versions() | {"peft": peft.__version__}
        common.write_json(out / "expected.json", {"versions": versions, "logprobs": logprobs})
        print(name, sum(p.numel() for k, p in peft_model.named_parameters() if "lora_" in k), "numbers")


if __name__ == "__main__":
    main()
