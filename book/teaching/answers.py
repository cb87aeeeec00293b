"""For instructors: one right answer and at least five wrong ones to every exercise, and checks where a chapter has none.

The exercises are the chapters' own; this file only says what a check must accept and what it must refuse. `right` and `wrong`
are expressions in the names of the chapter, of the solution cell of the exercise, and of `right` itself. `known` names a list
of wrong answers that the solution cell holds already.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What belongs to one exercise of one chapter."""

    chapter: str  # the name of the notebook
    number: int
    points: int
    right: str
    wrong: tuple[str, ...] = ()
    known: str = ""
    asked: str = ""  # what is asked for in the assignment, where the chapter leaves it to the reader
    blank: str = ""  # the line that the student fills in, likewise
    check: str = ""  # the check, likewise: students do not see it, for it holds the answer
    call: str = ""  # how the check is called, likewise


def letters(name: str, right: str) -> dict[str, str]:
    """A check of a set of letters."""
    check = f'''def check_{name}(letters):
    """These letters and no others, in any order."""
    return set(letters) == set({right!r})'''
    blank = f'my_{name} = None  # your letters, such as "ab"'
    return {"right": repr(right), "check": check, "call": f"check_{name}(my_{name})", "blank": blank}


def texts(*answers: str) -> tuple[str, ...]:
    return tuple(map(repr, answers))


PEAK = 'float(cam.grad_cam(net, images["motorcycle"], net.index(name)).max())'
FALLING = "dict(sorted({}, key=lambda pair: -pair[1]))"

ANSWERS = [
    Answer(
        "01_survey",
        1,
        2,
        "[1, 0, 1.5, 1]",
        ("[1, -1.5, 1.5, 1]", "[2, 0, 2, 1]", "[4, 0, 6, 4]", "[1, 0, 2, 1]", "[0, 1.5, 0, 0]"),
    ),
    Answer(
        "01_survey",
        2,
        4,
        "lambda e, there: e.masked_fill(~there, -torch.inf).softmax(0)",
        ("lambda e, there: e.masked_fill(~there, 0).softmax(0)", "lambda e, there: torch.where(there, e / e[there].sum(), 0)"),
        known="wrong",
    ),
    Answer(
        "01_survey",
        3,
        4,
        FALLING.format(f'((name, {PEAK}) for name in net.classes[::40] if name not in dict(net.top(images["motorcycle"], 5)))'),
        (
            "dict(list(right.items())[:10])",  # too few
            "dict(reversed(right.items()))",  # the faintest first
            FALLING.format('((n, float(net(images["motorcycle"][None])[0, net.index(n)])) for n in right)'),  # logits
            "{name: 1.0 for name in right}",  # every map stretched to its own peak
            FALLING.format(f'((name, {PEAK}) for name in [*right, net.top(images["motorcycle"], 1)[0][0]])'),  # it may be there
            FALLING.format("((n, 2 * peak + 1) for n, peak in right.items())"),
        ),
        asked="Give your twenty or more names with their peaks as a dictionary, the highest peak first. None may be among the "
        "network's first five choices for the picture: such a class may well be in it.",
        blank="my_peaks = None  # {name of a class: peak of its map}, at least twenty, the highest peak first",
        check='''def check_peaks(peaks):
    """Twenty names, none likely to be there, each with the peak that its map has, the highest first."""
    likely = dict(net.top(images["motorcycle"], 5))
    if len(peaks) < 20 or any(name in likely for name in peaks) or list(peaks.values()) != sorted(peaks.values(), reverse=True):
        return False
    found = {name: float(cam.grad_cam(net, images["motorcycle"], net.index(name)).max()) for name in peaks}
    return all(abs(peaks[name] - found[name]) <= 0.01 * max(1.0, found[name]) for name in peaks)''',
        call="check_peaks(my_peaks)",
    ),
    Answer(
        "01_survey",
        4,
        2,
        wrong=texts("a", "ac", "acde", "abcd", "bef", "", "abcdef"),
        asked="""Which of these tell you whether the glow means anything? Give their letters.

* **a** the peak of the map in units of the logit, beside the peaks of scans that are tumours
* **b** the same map with a colour scale of more contrast
* **c** the probability that the network gives to the class *tumour*
* **d** the maps of the same class on healthy scans of other people
* **e** the same map, drawn larger and smoother
* **f** the value of the map on the spot after all of it has been divided by its own peak""",
        **letters("glow", "acd"),
    ),
    Answer("02_gradual_extrapolation", 1, 2, "[4, 4 / 3, 0, 2 / 3]", ("[4, 2, 2, 1]", "[3, 2, 0, 2]"), known="wrong_answers"),
    Answer(
        "02_gradual_extrapolation",
        2,
        4,
        "spread",
        ("lambda x: x.var(0) / x.var(0).max().clamp_min(1e-9)", "lambda x: x.std((1, 2))"),
        known="refused",
    ),
    Answer(
        "02_gradual_extrapolation",
        3,
        4,
        "round(answer, 2)",
        ("own_energy", "answer + 0.1", "answer - 0.1", "100 * answer", "-answer"),
    ),
    Answer(
        "02_gradual_extrapolation",
        4,
        2,
        wrong=texts("a", "ac", "abc", "bde", "af", "", "abcdef"),
        asked="""Which of these are controls: which could show that the eyes and the nose are bright whatever the network decided,
or that it decides without them? Give their letters.

* **a** Gradual Extrapolation of a constant map on the same picture
* **b** Gradual Extrapolation of the same map through one level more
* **c** what the network says of the picture with the eyes covered, and with all but the eyes covered
* **d** the mean of this map over the eyes and the nose, beside its mean over the ears and the body
* **e** this map, drawn with a higher threshold
* **f** an edge detector on the same picture""",
        **letters("controls", "acf"),
    ),
    Answer(
        "03_layer_selection",
        1,
        2,
        "([0.95, 1.07, 1.07, 0.40], 15)",
        ("([0.95, 1.07, 1.07, 0.40], 4)", "([0.95, 1.07, 1.07], 15)"),
        known="wrong",
    ),
    Answer(
        "03_layer_selection",
        2,
        4,
        "by_sorting",
        ("lambda D, fraction: (D >= D.median()).float()", "lambda D, fraction: D * by_sorting(D, fraction)"),
        known="wrong",
    ),
    Answer(
        "03_layer_selection",
        3,
        4,
        "{name: harder(name, 0.1) for name in list(images)[:3]}",
        (
            "{name: harder(name, 0.5) for name in list(images)[:3]}",  # the easy exam
            "{name: (near, layer - 1) for name, (near, layer) in right.items()}",  # counted from 0
            "{name: (near - 1, layer) for name, (near, layer) in right.items()}",  # the best layer left out
            "dict(list(right.items())[:2])",
            "{name: (len(net.selectable_layers), layer) for name, (_, layer) in right.items()}",
            "list(right.values())",
        ),
        asked="Give, for each of the first three scenes, how many layers come within 0.01 of the best $W$ "
        "at `keep=0.1`, and the number of the chosen layer, counted from 1 as in the paper.",
        blank="my_exam = None  # {name of the scene: (how many layers, number of the chosen one)}",
        check='''def harder(name, keep):
    """How many layers are within 0.01 of the best W, and the number of the chosen one."""
    found = layers.layer_scores(net, images[name], targets[name], features=features, keep=keep, batch_size=BATCH_SIZE)
    return int((found.scores > found.scores.max() - 0.01).sum()), found.layers.index(found.chosen) + 1


def check_exam(exam):
    """Compare with the run, scene by scene."""
    return isinstance(exam, dict) and {name: tuple(found) for name, found in exam.items()} == {
        name: harder(name, 0.1) for name in list(images)[:3]
    }''',
        call="check_exam(my_exam)",
    ),
    Answer("03_layer_selection", 4, 2, "[2.35, 3.70, -0.18, 1.17]", ("[-2.35, -3.70, 0.18, -1.17]",), known="wrong"),
    Answer(
        "04_scorecampp",
        1,
        2,
        "[0.5, 0.25, 0.25]",
        ("[0.5, 0.5, 0.0]", "[1 / 3] * 3", "[1, 0, 0]", "[0.25, 0.5, 0.25]", "[1, 0.5, 0.5]", "[0.5, 0.25]"),
    ),
    Answer(
        "04_scorecampp", 2, 2, "(0.25, 0.10)", ("(1.0, 0.10)", "(0.25, 0.25)", "(0.10, 0.25)", "(0.25, 0.05)", "(0.33, 0.12)")
    ),
    Answer("04_scorecampp", 3, 4, "hard_gate", known="wrong"),
    Answer("04_scorecampp", 4, 4, "full_map", ("lambda net, image, target: torch.zeros_like(image[0])",), known="wrong"),
    Answer("04_scorecampp", 5, 2, '{"a", "d"}', texts("a", "ab", "abd", "acd", "ade", "abcde", "")),
    Answer("05_sise", 1, 2, "[0, 0.85, 0, 1]", known="wrong"),
    Answer("05_sise", 2, 4, "shared_out", known="wrong"),
    Answer(
        "05_sise",
        3,
        4,
        "[largest(*case) for case in list(cases.values())[:4]]",
        (
            "[mu + 0.05 for mu in right]",
            "[mu - 0.05 for mu in right]",
            "right[:3]",
            "[100 * mu + 1 for mu in right]",
            "[1 + mu for mu in right]",
        ),
        asked="Give the largest $\\mu$ among 0, 0.05, …, 0.95 for each of the first four cases, in their order.",
        blank="my_mus = None  # four numbers",
        check='''def largest(x, t, truth):
    """The largest threshold, in steps of 0.05, whose map has at most two points less energy on the thing than that of 0."""

    def energy(mu):
        return metrics.energy_inside(sise.fuse(block_maps(x, t, keep=lambda a: a > mu * a.max())), truth)

    enough = energy(0.0) - 0.02
    return max(step / 20 for step in range(20) if energy(step / 20) >= enough)


def check_mus(mus):
    """Compare with the run."""
    found = [largest(*case) for case in list(cases.values())[:4]]
    return len(mus) == len(found) and bool(np.allclose(mus, found, atol=0.001))''',
        call="check_mus(my_mus)",
    ),
    Answer(
        "05_sise",
        4,
        2,
        wrong=texts("a", "d", "abd", "ade", "bce", "", "abcde"),
        asked="""Which of these come out one way if the claim is true, and another way if it is not? Give their letters.

* **a** how much energy a map made of the rejected feature maps has on the thing, beside one made of as many drawn at random
* **b** how many feature maps are rejected
* **c** how many seconds the rejection saves
* **d** on pictures with several classes, how much energy a map made of the rejected ones has on things of the *other* classes,
  beside one made of as many drawn at random
* **e** whether SISE has a better insertion than RISE""",
        **letters("tests", "ad"),
    ),
    Answer("06_comparison", 1, 2, "{2, 3, 100}", known="wrong"),
    Answer("06_comparison", 2, 4, "matched", known="wrong"),
    Answer("06_comparison", 3, 4, "crowd", known="wrong"),
    Answer(
        "06_comparison",
        4,
        2,
        wrong=texts("abcd", "abcdefg", "acdef", "abdefh", "gh", "", "abcdefgh"),
        asked="""Which of these would help you to decide? Give their letters (there may be more than five).

* **a** the same scores with all maps cut to the same area, or the mean of each map beside them
* **b** rows for a blob, for a full map and for the method on shuffled weights
* **c** whether the score is a logit or a probability, and how ties were broken
* **d** a score of another kind, such as deletion or one that asks a truth
* **e** methods that do not read the last layer
* **f** intervals of the paired differences
* **g** the third decimal of the Average Drop
* **h** a seventh method that reads the last layer""",
        **letters("questions", "abcdef"),
    ),
    Answer(
        "06_comparison",
        5,
        4,
        "{name: [inserted(name, fill) for fill in (0.0, metrics.black(net), metrics.blur)] for name in of_three}",
        (
            "{name: [100 * value for value in values] for name, values in right.items()}",
            "{name: values[:2] for name, values in right.items()}",
            "{name: [1 - value for value in values] for name, values in right.items()}",
            "dict(list(right.items())[:2])",
            "{name: [value + 0.05 for value in values] for name, values in right.items()}",
            "list(right.values())",
        ),
        asked='Give, for the scene that the chapter takes apart and the maps of "Grad-CAM", "guided backprop" and "occlusion", '
        "the insertion on grey, on black and on the blurred picture (with `**curve`, as in the chapter). Which orders survive?",
        blank='my_fills = None  # {"Grad-CAM": [on grey, on black, on the blurred picture], …: …, …: …}',
        check='''of_three = ["Grad-CAM", "guided backprop", "occlusion"]


def inserted(name, fill):
    return metrics.insertion(net, X, c, first[name], fill=fill, **curve)


def check_fills(fills):
    """Compare with the run."""
    found = {name: [inserted(name, fill) for fill in (0.0, metrics.black(net), metrics.blur)] for name in of_three}
    return fills.keys() == found.keys() and all(
        len(fills[name]) == 3 and np.allclose(fills[name], found[name], atol=0.006) for name in found
    )''',
        call="check_fills(my_fills)",
    ),
]
