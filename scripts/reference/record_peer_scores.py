"""Record what VLMEvalKit and lmms-eval give for the responses in tests/fixtures/scorers/peers.json.

    python3 scripts/reference/record_peer_scores.py VLMEVALKIT LMMS_EVAL

Both arguments are git repositories that hold the commits below. Their functions are compiled from those commits and called; nothing of them
is written but the numbers, into the field `peers` of each case. Needs numpy.
"""

import ast
import json
import os
import random
import re
import statistics
import string
import subprocess
import sys
from collections import Counter, defaultdict
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, List, Optional

import numpy as np

VLMEVALKIT = "e8e78f05f3080fe28154f2130321f17951c3be94"
LMMS_EVAL = "75571cfe0fa36ca5ec2e6aa2bb268f9d38295af3"
CASES = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "scorers" / "peers.json"


def compiled(repository, commit, path, given=()):
    """The functions, classes and plain constants of a file, without its imports."""
    source = subprocess.run(
        ["git", "-C", repository, "show", f"{commit}:{path}"], check=True, capture_output=True, text=True
    ).stdout
    space = {
        "re": re, "os": os, "np": np, "random": random, "string": string, "statistics": statistics, "cp": SimpleNamespace(copy=lambda x: x),
        "Counter": Counter, "defaultdict": defaultdict, "List": List, "Dict": Dict, "Optional": Optional, **dict(given),
    }
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign)):
            continue
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        try:
            exec(compile(ast.Module([node], []), path, "exec"), space)
        except Exception:  # a constant or a class made from something that is not here, and not needed
            continue
    return SimpleNamespace(**space)


def peers(vlmevalkit, lmms_eval):
    """For each scorer, the functions (response, answer, meta) -> score of the benchmarks that it serves."""
    def vlm(path, **given):
        return compiled(vlmevalkit, VLMEVALKIT, path, given)

    def lmms(path, **given):
        return compiled(lmms_eval, LMMS_EVAL, "lmms_eval/" + path, given)

    matching = vlm("vlmeval/utils/matching_util.py")
    punctuation = vlm("vlmeval/smp/misc.py").process_punctuation
    yorn = vlm("vlmeval/dataset/utils/yorn.py", process_punctuation=punctuation)

    def is_list(text, kind):
        return isinstance(ast.literal_eval(text), kind)

    vqa_eval = vlm(
        "vlmeval/dataset/utils/vqa_eval.py", process_punctuation=punctuation, istype=is_list,
        listinstr=lambda names, text: any(name in text for name in names),
    )
    refcoco = vlm("vlmeval/dataset/refcoco.py", ImageBaseDataset=object, pd=SimpleNamespace(Series=object)).RefCOCODataset
    tasks = "tasks/"
    mcq = lmms(tasks + "_task_utils/mcq_extract.py")
    mmmu = lmms(tasks + "_task_utils/mmmu_mcq_utils.py")
    mme = lmms(tasks + "mme/utils.py")
    pope = lmms(tasks + "pope/utils.py")
    processor = lmms(tasks + "_task_utils/vqa_eval_metric.py").EvalAIAnswerProcessor
    textvqa = lmms(tasks + "textvqa/utils.py", EvalAIAnswerProcessor=processor)
    chartqa = lmms(tasks + "chartqa/utils.py")
    ocrbench = lmms(tasks + "ocrbench/utils.py")
    metrics = lmms("api/metrics.py")
    boxes = lmms(tasks + "refcoco/utils_rec.py")

    def letters(meta):
        return string.ascii_uppercase[: len(meta["options"])]

    def vlm_choice(response, answer, meta):
        return matching.can_infer(response, dict(zip(letters(meta), meta["options"]))) == answer

    def lmms_mmstar(response, answer, meta):
        return mcq.extract_mcq_answer(response, choices=list(letters(meta))) == answer

    def lmms_mmmu(response, answer, meta):
        """`None` where an option is drawn at random."""
        index, choices = dict(zip(letters(meta), meta["options"])), list(letters(meta))
        drawn = []
        mmmu.random = SimpleNamespace(choice=lambda options: drawn.append(1) or options[0])
        mmmu.parse_mmmu_multi_choice_response.__globals__["random"] = mmmu.random
        said = mmmu.parse_mmmu_multi_choice_response(response, choices, index)
        return None if drawn else said == answer

    def lmms_pope(response, answer, _):
        return pope.pope_process_results({"answer": answer, "question_id": 0}, [response])["pope_accuracy"]["score"]

    def golds(answer, meta):
        return meta.get("answers", [answer])

    def vlm_vqa(method, dataset):
        def score(response, answer, meta):
            line = {"answer": repr(golds(answer, meta)), "prediction": response}
            return vqa_eval.hit_calculate([vqa_eval.process_line(line, method=method)], dataset)[0]

        return score

    def lmms_textvqa(response, answer, meta):
        doc = {"answers": list(golds(answer, meta)), "question_id": 0}
        return textvqa.textvqa_process_results(doc, [response])["exact_match"]

    def lmms_ocrbench(response, answer, meta):
        dataset = "HME100k" if meta.get("formula") else "IIIT5K"
        doc = {"answer": golds(answer, meta), "dataset": dataset, "question_type": ""}
        return ocrbench.ocrbench_process_results(doc, [response])["ocrbench_accuracy"]["score"]

    def vlm_ocrbench(response, answer, meta):
        """The loop of `OCRBench.evaluate`, which cannot be called without its files: compiled from the method's own statements."""
        source = subprocess.run(
            ["git", "-C", vlmevalkit, "show", f"{VLMEVALKIT}:vlmeval/dataset/image_vqa.py"],
            check=True, capture_output=True, text=True,
        ).stdout
        method = next(
            part for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "OCRBench"
            for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "evaluate"
        )
        loop = next(part for part in method.body if isinstance(part, ast.For))
        category = "Handwritten Mathematical Expression Recognition" if meta.get("formula") else "Regular Text Recognition"
        line = {"prediction": response, "answer": repr(golds(answer, meta)), "category": category}
        space = {"lines": [line], "tqdm": lambda x: x, "OCRBench_score": defaultdict(int)}
        exec(compile(ast.Module([loop], []), "image_vqa.py", "exec"), space)
        return space["OCRBench_score"][category]

    def vlm_box(response, answer, meta):
        width, height = meta["size"]
        said = refcoco._parse_prediction(response)
        said = None if said is None else refcoco._to_absolute(said, width, height)
        return said is not None and refcoco._compute_iou(said, np.array([float(x) for x in answer.split()])) >= 0.5

    def lmms_box(response, answer, meta):
        width, height = meta["size"]
        x1, y1, x2, y2 = (float(x) for x in answer.split())
        gold = [x1 / width, y1 / height, x2 / width, y2 / height]
        return boxes.compute_accuracy(gold, boxes.parse_float_sequence_within(response), 0.5)

    def lmms_anls(response, answer, meta):
        return metrics.anls(golds(answer, meta), [response])["anls"]

    def lmms_chartqa(response, answer, meta):
        return max(chartqa.relaxed_correctness(response, gold) for gold in golds(answer, meta))

    return {
        "choice": {"vlmevalkit": vlm_choice, "lmms-eval mmstar": lmms_mmstar, "lmms-eval mmmu": lmms_mmmu},
        "yes-no": {
            "vlmevalkit": lambda response, answer, _: yorn.YOrN_Extraction(response) == answer,
            "lmms-eval mme": lambda response, answer, _: mme.parse_pred_ans(response) == answer.lower(),
            "lmms-eval pope": lmms_pope,
        },
        "iou": {"vlmevalkit": vlm_box, "lmms-eval": lmms_box},
        "anls": {"vlmevalkit": vlm_vqa("anls", "DocVQA"), "lmms-eval": lmms_anls},
        "vqa": {"vlmevalkit": vlm_vqa("vqa_score", "TextVQA"), "lmms-eval": lmms_textvqa},
        "relaxed": {"vlmevalkit": vlm_vqa("relaxed_accuracy", "ChartQA"), "lmms-eval": lmms_chartqa},
        "containment": {"vlmevalkit": vlm_ocrbench, "lmms-eval": lmms_ocrbench},
        "exact": {"vlmevalkit": vlm_vqa("accuracy", "OCRVQA")},
    }


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    rules = peers(*sys.argv[1:])
    cases = json.loads(CASES.read_text(encoding="utf-8"))
    for case in cases:
        asked = (case["response"], case["answer"], case.get("meta", {}))
        scores = {name: rule(*deepcopy(asked)) for name, rule in rules[case["task"]].items()}
        case["peers"] = {name: None if score is None else round(float(score), 12) for name, score in scores.items()}
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in cases)
    CASES.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
