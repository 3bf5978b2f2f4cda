"""Record what math-verify says of the cases of the scorer `maths`: tests/fixtures/scorers/math_verify.json.

    python3 scripts/reference/record_maths.py

Each case is a gold answer, a response, and whether math-verify 0.9.0 takes the response for right (`verify(parse(gold), parse(response))`, all
settings as they come; gold answers that hold no formula sign are also parsed between dollar signs, as its README asks for). The field `value` is what the rule
of docs/scorers.md gives; where the two differ, `why` names the reason. The script keeps both fields, replaces `math_verify`, and adds cases that are new in CASES.
"""

import importlib.metadata
import json
import random
from fractions import Fraction
from pathlib import Path

from math_verify import parse, verify

FILE = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "scorers" / "math_verify.json"
VERSION = "0.9.0"
# Signs of a formula.
SIGNS = "\\^_{}=<>()[]|xy!\u03c0\u221a"


def wrapped(answer):
    """An answer as responses give it."""
    return [
        answer,
        f"\\boxed{{{answer}}}",
        f"The answer is {answer}.",
        f"We get $x = 3$, and so the answer is ${answer}$.",
        f"First 12 + 5 = 17. Therefore, the final answer is $\\boxed{{{answer}}}$.",
    ]


# gold answer -> responses. A number in words or prose is there to be wrong.
CASES = {
    "72": wrapped("72") + ["72 apples", "72.0", "072", "71", "-72", "7.2e1", "The total is 72", "#### 72", "72 or 73", "\\boxed{71} and then \\boxed{72}", "\\boxed{72} and then \\boxed{71}", "144/2", "seventy-two", "It takes 72 hours, not 71.", "", "I do not know."],
    "1/2": wrapped("\\frac{1}{2}") + ["0.5", ".5", "50\\%", "50%", "\\frac12", "\\dfrac{1}{2}", "\\tfrac{1}{2}", "2/4", "\\frac{2}{4}", "1/3", "\\frac{1}{-2}", "\\frac{-1}{-2}", "1 / 2", "\\frac 1 2", "0.50", "1:2", "{1}/{2}", "2^{-1}"],
    "\\frac{3}{4}": ["3/4", "0.75", "\\frac34", "75\\%", "\\frac{6}{8}", "\\frac{4}{3}", "-\\frac{3}{4}", "3 \\div 4", "\\left(\\frac{3}{4}\\right)"],
    "-\\frac{2}{3}": ["-2/3", "\\frac{-2}{3}", "\\frac{2}{-3}", "-0.666667", "-0.67", "\\frac{2}{3}", "- \\frac{2}{3}"],
    "1\\frac{1}{2}": ["\\frac{3}{2}", "1.5", "1 1/2", "3/2", "1\\frac{1}{2}", "11/2"],
    "1234": ["1,234", "1{,}234", "1\\,234", "1 234", "1234.00", "\\$1,234", "$1234$ dollars", "1.234"],
    "1234567": ["1,234,567", "1.234567e6", "1.234567 \\times 10^6", "1234567"],
    "5\\text{ cm}": ["5", "5 cm", "5\\text{ cm}", "5\\mathrm{cm}", "5 \\text{ m}", "5\\text{cm}^2", "6 cm"],
    "25\\text{ m}^2": ["25", "25 m^2", "25\\text{ square meters}", "25 square meters", "24"],
    "60": ["60 km/h", "60\\text{ km/h}", "60 miles per hour", "60^\\circ", "60^{\\circ}", "60°", "60 degrees", "60\\degree", "\\$60", "$60", "60 dollars", "60\\%", "60%", "£60", "60 €"],
    "10\\%": ["10\\%", "10%", "0.1", "10", "\\frac{1}{10}", "0.01"],
    "\\sqrt{2}": ["\\sqrt{2}", "\\sqrt2", "sqrt(2)", "2^{1/2}", "2^{\\frac{1}{2}}", "1.414214", "1.41", "\\frac{2}{\\sqrt{2}}", "\\sqrt[2]{2}", "√2", "-\\sqrt{2}", "\\sqrt{3}"],
    "2\\sqrt{3}": ["2\\sqrt{3}", "\\sqrt{12}", "2*sqrt(3)", "2 \\cdot \\sqrt{3}", "3\\sqrt{2}", "3.464102", "\\frac{6}{\\sqrt{3}}"],
    "\\pi": ["\\pi", "π", "pi", "3.141593", "3.14", "\\frac{2\\pi}{2}", "22/7"],
    "9\\pi": ["9\\pi", "9 \\pi", "9π", "28.274334", "9 \\cdot \\pi", "\\pi \\cdot 9", "9pi", "9"],
    "2^{10}": ["1024", "2^{10}", "2^10", "2**10", "4^5", "1023"],
    "5!": ["120", "5!", "5 \\cdot 4 \\cdot 3 \\cdot 2", "119"],
    "\\binom{5}{2}": ["10", "\\binom{5}{2}", "\\binom{5}{3}", "\\frac{5!}{2!3!}", "20"],
    "x^2+2x+1": ["x^2+2x+1", "(x+1)^2", "1+2x+x^2", "x^2 + 2x + 1", "x*x+2*x+1", "(x+1)(x+1)", "x^2+2x", "(x-1)^2", "y^2+2y+1"],
    "(x-2)(x+3)": ["(x+3)(x-2)", "x^2+x-6", "(x-2)(x+3)", "x^2-x-6"],
    "\\frac{x}{2}": ["x/2", "\\frac{1}{2}x", "0.5x", "\\frac{x}{2}", "2x"],
    "x=5": ["5", "x=5", "x = 5", "5 = x", "x=6", "6", "y=5"],
    "7": ["x=7", "x = 7", "3+4=7", "y = 7", "x=3", "n \\in \\{7\\}", "7 = x"],
    "y=2x+1": ["y=2x+1", "y = 1 + 2x", "2x+1", "y-2x=1", "y=2x-1", "2x+1=y"],
    "x>3": ["x>3", "3<x", "x > 3", "x \\geq 3", "(3,\\infty)", "x<3"],
    "(1,2)": ["(1,2)", "(1, 2)", "\\left(1,2\\right)", "(1.0, 2.0)", "(2,1)", "1,2", "(1,2,3)", "[1,2]", "(x,y)=(1,2)"],
    "(\\frac{1}{2},-3)": ["(0.5,-3)", "(1/2, -3)", "\\left(\\frac{1}{2}, -3\\right)", "(-3, 1/2)", "(\\frac12, -3)"],
    "[0,1]": ["[0,1]", "[0, 1]", "(0,1)", "[0,1)", "\\left[0,1\\right]", "x \\in [0,1]"],
    "(-\\infty,2)\\cup(3,\\infty)": ["(-\\infty,2)\\cup(3,\\infty)", "(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)", "(-\\infty,2]\\cup(3,\\infty)"],
    "\\{1,2,3\\}": ["\\{1,2,3\\}", "\\{3,2,1\\}", "1,2,3", "{1,2,3}", "\\{1,2\\}", "(1,2,3)", "1, 2, and 3"],
    "1,2": ["1,2", "2,1", "1, 2", "1 and 2", "1 or 2", "x=1, x=2", "1", "x=1 or x=2", "\\{1,2\\}"],
    "3\\pm\\sqrt{2}": ["3\\pm\\sqrt{2}", "3+\\sqrt{2}, 3-\\sqrt{2}", "3 \\pm \\sqrt{2}", "3+\\sqrt{2}"],
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}": ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"],
    "3.5\\times10^{-4}": ["3.5\\times10^{-4}", "0.00035", "3.5e-4", "3.5 \\cdot 10^{-4}", "3.5\\times10^{4}"],
    "\\text{(C)}": ["\\text{(C)}", "(C)", "C", "\\text{C}", "B", "\\boxed{\\text{(C)}}"],
    "\\text{east}": ["\\text{east}", "east", "East", "\\text{west}", "\\boxed{\\text{east}}"],
    "\\log_2 8": ["3", "\\log_2 8", "\\log_{2} 8", "4"],
    "\\sin 30^\\circ": ["\\sin 30^\\circ", "\\sin(30)"],
    "\\frac{\\pi}{6}": ["\\pi/6", "\\frac{\\pi}{6}", "30^\\circ", "0.523599"],
    "0": ["0", "-0", "0.0", "\\boxed{0}", "1", "0\\%"],
    "-5": ["-5", "−5", "5", "- 5", "-5.0", "(-5)"],
    "0.333": ["1/3", "0.333", "0.3330", "0.3333"],
    "\\frac{1}{3}": ["0.333333", "0.333", "0.3333333", "33.3333\\%"],
}


def main():
    assert importlib.metadata.version("math-verify") == VERSION, f"recorded with math-verify {VERSION}"
    # math-verify reads LaTeX between signs alone.
    signs = lambda r: f"${r}$" if any(c in r for c in SIGNS) and not any(part in r for part in ("$", "boxed", "answer", "####")) else r
    pairs = [(gold, signs(response)) for gold, responses in CASES.items() for response in dict.fromkeys(responses)]
    draw = random.Random(21)
    # Plain numbers in sentences, right and wrong.
    while len(pairs) < 300:
        value = Fraction(draw.randint(-40, 400), draw.choice([1, 1, 2, 5, 8]))
        said = draw.choice([value, value, value + 1])
        text = str(said) if draw.random() < 0.6 else str(float(said))
        sentence = draw.choice(["So she pays {}.", "#### {}", "The answer is {}", "Hence the value is $\\boxed{{{}}}$", "It takes {} minutes in all."])
        pairs.append((str(value), sentence.format(text)))
    before = {}
    if FILE.exists():
        before = {(c["answer"], c["response"]): c for c in json.loads(FILE.read_text())}
    lines = []
    for gold, response in pairs:
        known = before.get((gold, response), {})
        wanted = parse(f"${gold}$")
        case = {"answer": gold, "response": response, "math_verify": int(verify(wanted, parse(response)))}
        case["value"] = known.get("value", case["math_verify"])
        if case["value"] != case["math_verify"]:
            case["why"] = known.get("why", "?")
        lines.append("  " + json.dumps(case))
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(len(lines), "cases;", sum(c.count('"why"') for c in lines), "differ")


main()
