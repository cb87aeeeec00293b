"""A new chapter with the sections of all the others, which runs and passes the guards before a word of it is written.

    python book/new_chapter.py 07_my_topic "My topic: what it is about" --paper bibkey2030

It writes the notebook, its smoke profile and a quiz, and says what is left to do. Its method is Grad-CAM, so that every cell
has something to show; put yours in its place, one section after the other. Text in *italics* is a question to you, not to
the reader.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BOOK = Path(__file__).resolve().parent

PARAMETERS = """\
MODEL = "slim_vgg16_scenes"  # any name that helpers.models.load knows
DATASET = "scenes"  # any name that helpers.datasets.SETS knows whose pictures have a ground truth
DATA_ROOT = ""  # where a data set that is not drawn lies
N_IMAGES = 8  # pictures in the tables
SEED = 0
DEVICE = "cpu"
BATCH_SIZE = 8"""

IMPORTS = """\
import inspect
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Code

from helpers import cam, data, datasets, metrics, models, plotting, sanity
from helpers.core import capture, frozen, resize

plotting.use_book_style()"""

LOAD = """\
net = models.load(MODEL, device=DEVICE)
pairs = datasets.pairs(datasets.load(DATASET, DATA_ROOT, N_IMAGES, SEED))
cases = {f"{photo.name}, {thing}": (net.preprocess(photo.picture), thing, photo) for photo, thing in pairs}
X, thing, photo = next(iter(cases.values()))  # the picture that the chapter takes apart: [3, H, W]
c, size = net.index(thing), tuple(X.shape[-2:])
truth = photo.mask(thing, size)
print(f"{net.name}; {len(cases)} pictures; the first shows a {thing}, {float(truth.mean()):.0%} of the picture")"""

PICTURE = """\
plotting.overlays(net.pixels(X), {"Grad-CAM": cam.grad_cam(net, X, c)}, outline=truth, picture_title=f"“{thing}”")
plt.show()"""

BY_HAND = """\
with torch.enable_grad(), frozen(net), capture(net, [net.cam_layer]) as seen:
    y = net(X[None])[0, c]  # the logit
    A = seen[net.cam_layer]  # [1, K, h, w]
    (g,) = torch.autograd.grad(y, A)
alpha = g.mean((2, 3))  # Eq. (1): [1, K]
by_hand = resize(torch.einsum("nk,nkij->ij", alpha, A.detach()).relu(), size)  # Eq. (2): [H, W]"""

HELPER = """\
helper = cam.grad_cam(net, X, c)
torch.testing.assert_close(by_hand, helper)
print("by hand and helper: the same map")"""

PHOTO = """\
photo_net, cat = models.load("efficientnet_lite0", device=DEVICE), data.photo("chelsea")
image = photo_net.preprocess(cat.picture)
said, p = photo_net.top(image, 1)[0]
saliency = cam.grad_cam(photo_net, image, photo_net.index(said))
plotting.overlays(photo_net.pixels(image), {"Grad-CAM": saliency}, picture_title=f"“{said}”, {p:.2f}")
plt.show()"""

MEASURE = """\
def told(values):
    \"\"\"Mean and 95 % bootstrap interval of a column.\"\"\"
    low, high = metrics.bootstrap_interval(values)
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}], n = {values.notna().sum()}"


shuffled = models.randomised(net, seed=SEED)
methods = {
    "the method": cam.grad_cam,
    "shuffled weights": lambda _net, image, target: cam.grad_cam(shuffled, image, target),
    "edge detector": sanity.edge_map,
    "random map": partial(sanity.random_map, seed=SEED),
    "centred blob": sanity.centred_blob,
}
energy = pd.DataFrame(
    [
        {method: metrics.energy_inside(explain(net, x, net.index(t)), p.mask(t, size)) for method, explain in methods.items()}
        for x, t, p in cases.values()
    ]
)
print(energy.apply(told).to_string())"""

PAIRED = """\
difference = energy["the method"] - energy["centred blob"]
print("energy inside, minus that of a blob, picture by picture:", told(difference))"""

ABLATION = """\
for layer in net.block_layers[-2:]:
    maps = {name: cam.grad_cam(net, x, net.index(t), layer=layer) for name, (x, t, _) in cases.items()}
    inside = pd.Series([metrics.energy_inside(maps[name], p.mask(t, size)) for name, (_, t, p) in cases.items()])
    print(f"read at {layer}: energy inside {told(inside)}")"""

BOX = """\
scaled = []
for weights in (g.mean((2, 3)), g.sum((2, 3))):
    saliency = torch.einsum("nk,nkij->ij", weights, A.detach()).relu()
    scaled.append(saliency / saliency.max())
print(f"largest difference of the two, each scaled to its peak: {float((scaled[0] - scaled[1]).abs().max()):.3f}")"""

STRIP = """\
strip = {name: explain(net, X, c) for name, explain in methods.items()}
plotting.overlays(net.pixels(X), strip, outline=truth, picture_title=f"“{thing}”")
plt.show()"""

EXERCISE = """\
my_weight = None  # a number


def check_weight(value):
    \"\"\"The mean gradient of four places.\"\"\"
    return abs(value - torch.tensor([2.0, 0, 1, -1]).mean()) < 0.01


print("no answer yet" if my_weight is None else "right" if check_weight(my_weight) else "not yet: how many places are there?")"""

SOLUTION = """\
assert check_weight(0.5)
assert not any(check_weight(wrong) for wrong in (2, 1, 0.75, -0.5))
print("(2 + 0 + 1 - 1) / 4 = 0.5; 4 wrong answers do not pass")"""

QUIZ = """\
# Asked at the end of {name}. book/_ext/quiz.py reads it, tests/test_reading.py says what may stand here.
- name: control
  ask: A map lights up the thing. What do you need to see beside it before you believe it?
  choices:
    - text: Nothing, since the thing is lit.
      because: A blob in the middle lights up many things, and knows none of them.
    - text: What the same method shows on shuffled weights.
      right: true
      because: If it shows the same, the map was about the picture and not about the network.
    - text: The same map in other colours.
      because: Colours change how it looks, not what it is.
  see: Sanity strip
- name: mean
  ask: A feature map has the gradients 2, 0, 1 and −1 at its four places. What is its weight in Grad-CAM?
  value: 0.5
  work: (2 + 0 + 1 - 1) / 4
  within: 0.001
  because: The mean over the places.
  wrong:
    - value: 2
      because: That is the sum. Grad-CAM takes the mean.
  otherwise: Add the four, divide by how many there are.
  see: The equations
- name: interval
  ask: The interval of a paired difference holds 0. What may you say?
  choices:
    - text: Both are equally good.
      because: A wide interval holds 0 as well. Equality would need a narrow one.
    - text: These pictures do not decide it.
      right: true
      because: More pictures might. Until then, take the cheaper one.
    - text: The one with the higher mean is better.
      because: It is, on these pictures. On others the order may turn round.
  see: Beside the paper
"""


def figure(name: str, caption: str, alt: str) -> dict[str, object]:
    return {"tags": ["hide-input"], "mystnb": {"figure": {"name": name, "caption": caption}, "image": {"alt": alt}}}


def cells_of(name: str, title: str, paper: str) -> list[nbformat.NotebookNode]:
    """The cells of the chapter, in the order that all chapters have."""
    short = name.split("_", 1)[1].replace("_", "-")
    md, code = new_markdown_cell, new_code_cell
    cited = f"{{cite:t}}`{paper}`" if paper else "*which one?*"
    card = f"""# {title}

:::{{admonition}} The card
:class: chapter-card

| | |
|---|---|
| **Paper** | {cited} |
| **Question** | *What does it ask? One sentence, no jargon.* |
| **Answer in a line** | *What does it do? One sentence.* |
| **You should know** | what a {{term}}`feature map` is; {{doc}}`00_quickstart` |
| **Costs** | one {{term}}`forward pass` and one {{term}}`backward pass` |
| **Time to run** | *seconds or minutes, on two CPU cores* |
:::"""
    equations = f"""## The equations

*Each with the number that it has in the paper.* The weight of the $k$-th {{term}}`feature map` $A^k$ with $Z$ places is the mean
gradient of the {{term}}`logit` $y^c$, its Eq. (1),

$$ \\alpha_k = \\frac1Z \\sum_{{i,j}} \\frac{{\\partial y^c}}{{\\partial A^k_{{ij}}}} $$ (eq-{short}-weight)

and the map is the weighted sum, rectified, its Eq. (2):

$$ L = \\mathrm{{ReLU}}\\Big(\\sum_k \\alpha_k A^k\\Big) $$ (eq-{short}-map)"""
    box = """## Paper, code and arithmetic

:::{admonition} Mean or sum?
:class: paper-vs-code
*Where the text, the code and the numbers of a paper disagree, say so in three sentences and run it.* One of them writes a sum
over the places where another writes a mean. For a map that is scaled in the end this makes no difference:
:::"""
    limits = """## Strengths and limits

**For it.** *What does it do better than what was there?*

**Against it.** *Where does it fail? Which of its claims failed here?*

## Exercises

**1. By hand.** A feature map has the gradients 2, 0, 1 and −1 at its four places. What is its weight in Grad-CAM?

```{dropdown} Hint
One number for the whole map.
```"""
    end = """```{admonition} Take-away
:class: tip
*Three sentences that a reader should still know in a year.*
```"""
    check = f"""## Check yourself

```{{quiz}} {name}
```

## Papers of this chapter

```{{bibliography}}
:filter: docname in docnames
:list: bullet
```"""
    return [
        md(card),
        code(PARAMETERS, metadata={"tags": ["parameters"]}),
        code("from helpers.parameters import only_known\n\nonly_known(globals())", metadata={"tags": ["hide-input"]}),
        code(IMPORTS, metadata={"tags": ["hide-input"]}),
        code(LOAD),
        md("## The idea in pictures\n\n*What happens, without an equation? Two paragraphs and a picture.*"),
        code(
            PICTURE,
            metadata=figure(
                f"fig-{short}-idea",
                "The first picture and its map. Dashed: the thing's exact outline.",
                "A drawn scene, and the same with a heat map that is bright around the outlined shape.",
            ),
        ),
        md(equations),
        md("## By hand\n\n*At most ten lines on one picture, nothing hidden.*"),
        code(BY_HAND),
        md("The package's function, and the proof that it is the same:"),
        code('Code(inspect.getsource(cam.grad_cam), language="python")', metadata={"tags": ["hide-input"]}),
        code(HELPER),
        md("## Real photographs\n\n*What does one see on a photograph that one does not on a drawing?*"),
        code(
            PHOTO,
            metadata=figure(
                f"fig-{short}-photo",
                "A photograph and its map for the network's first choice. Photograph: Stefan van der Walt, CC0.",
                "A ginger cat looking at the camera, and the same with a heat map over its head.",
            ),
        ),
        md(
            "## Against ground truth\n\n"
            "The share of a map's energy on the thing, whose place is known to the pixel: the method, and\n"
            "four maps that explain nothing, with 95 % {term}`bootstrap <bootstrap interval>` intervals."
        ),
        code(MEASURE),
        md("## Beside the paper\n\n*The paper's table, ours beside it, and every difference picture by picture.*"),
        code(PAIRED),
        md("## Ablations\n\n*Take a part out. Does it get worse?*"),
        code(ABLATION),
        md(box),
        code(BOX),
        md("## Sanity strip\n\nThe method beside what explains nothing {cite:p}`adebayo2018sanity`."),
        code(
            STRIP,
            metadata=figure(
                f"fig-{short}-strip",
                "The method, the same on shuffled weights, and three maps that look at no network.",
                "The scene and five heat maps: one on the shape, one without aim, edges, random patches, a blob in the middle.",
            ),
        ),
        md(limits),
        code(EXERCISE, metadata={"tags": ["exercise"]}),
        code(SOLUTION, metadata={"tags": ["solution", "hide-cell"]}),
        md(end),
        md(check),
    ]


def write(name: str, title: str, paper: str = "", book: Path = BOOK) -> list[Path]:
    """Notebook, smoke profile and quiz of a new chapter. ValueError for a bad name, FileExistsError where one is there."""
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", name):
        raise ValueError(f"a chapter's name looks like 07_my_topic, not {name!r}")
    paths = [book / f"{name}.ipynb", book / f"profiles/smoke/{name}.yaml", book / f"quizzes/{name}.yaml"]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
    cells = cells_of(name, title, paper)
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:03d}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), paths[0])
    paths[1].write_text("# Seconds, not minutes: every cell once.\nN_IMAGES: 2\n", encoding="utf-8")
    paths[2].write_text(QUIZ.format(name=name), encoding="utf-8")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="number and name, as in 07_my_topic")
    parser.add_argument("title", help="the main heading")
    parser.add_argument("--paper", default="", help="its key in book/references.bib")
    given = parser.parse_args()
    try:
        paths = write(given.name, given.title, given.paper)
    except (ValueError, FileExistsError) as problem:
        sys.exit(str(problem))
    print("\n".join(f"wrote {path.relative_to(BOOK.parent)}" for path in paths))
    print(f"""
What is left:
  1. make outputs CHAPTER={given.name}     runs it and stores what it shows; `make test` compares that
  2. _toc.yml                              a line `- file: book/{given.name}`
  3. book/references.bib                   the paper, if it is not there
  4. book/profiles/laptop and paper        what a larger run takes; book/costs.py: what it costs; workflow gpu: its name
  5. the text in italics, and your method in place of Grad-CAM
  6. tests/test_chapter_{given.name[:2]}.py                 what must stay true of its numbers
  7. book/teaching                         answers.py: an entry for each exercise; plans.yaml: the chapter in every plan, its
                                           exercises in the longest; discussion.md: three questions; index.md: its slides
git add all of it: `make student` copies what git knows.""")


if __name__ == "__main__":
    main()
