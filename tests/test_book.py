"""Guards over the stored notebooks and the built pages.

A guard is a function that returns one line for every problem. Each has bad examples below that it must object to, because a
check that cannot fail is worth nothing.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from helpers.parameters import literals

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
HTML = ROOT / "_build" / "html"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
MARKDOWN = sorted(BOOK.rglob("*.md"))
PAGES = sorted(path for path in HTML.rglob("*.html") if "_static" not in path.parts)

STANDARD = ["MODEL", "DATASET", "DATA_ROOT", "N_IMAGES", "SEED", "DEVICE", "BATCH_SIZE"]
TAGS = {
    *("parameters", "hide-input", "hide-output", "hide-cell", "remove-cell", "remove-input", "remove-output"),
    *("nbval-ignore-output", "nbval-skip", "skip-execution", "exercise", "solution", "output_scroll", "full-width"),
}
MEGABYTES = 1
IMAGES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|usr|opt|var|mnt|private|workspace)/|\b[A-Za-z]:\\\\?(?:Users|Windows)")
CLOCK = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
CLASS_NUMBER = re.compile(r"\bclass(?:es)?\s*(?:index|id|no\.?|number|#)?\s*[:=#]?\s*\d+\b|\btarget\s*=\s*\d+\b", re.IGNORECASE)

Notebook = Any  # nbformat's NotebookNode: a dictionary whose keys are attributes too


def code_cells(nb: Notebook) -> list[Notebook]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags_of(cell: Notebook) -> list[str]:
    return list(cell.metadata.get("tags", []))


def outputs_of(nb: Notebook) -> Iterator[tuple[int, Notebook, Notebook]]:
    """Number of the code cell (from 1), the cell and one of its outputs."""
    for number, cell in enumerate(code_cells(nb), 1):
        for output in cell.outputs:
            yield number, cell, output


def text_of(output: Notebook) -> str:
    """All that an output shows as text."""
    data = output.get("data", {})
    return "\n".join([output.get("text", ""), *(str(data[kind]) for kind in data if kind.startswith("text/"))])


def has_image(cell: Notebook) -> int:
    return sum(any(kind in output.get("data", {}) for kind in IMAGES) for output in cell.outputs)


# --- guards over one notebook ------------------------------------------------------------------------------------------


def executed_in_order(nb: Notebook) -> list[str]:
    """nbval compares nothing in a cell without an execution count, so every code cell needs the one of a fresh run.

    A cell of controls, which need a reader, is left out by the build and by nbval alike, and has no output.
    """
    skipped = [cell for cell in code_cells(nb) if "skip-execution" in tags_of(cell)]
    if any("nbval-skip" not in tags_of(cell) or cell.outputs or cell.execution_count for cell in skipped):
        return ["a cell tagged skip-execution is tagged nbval-skip, too, and has neither a count nor outputs"]
    counts = [cell.execution_count for cell in code_cells(nb) if cell not in skipped]
    wanted = list(range(1, len(counts) + 1))
    return [] if counts == wanted else [f"execution counts are {counts}: restart the kernel, run all, save"]


def no_errors(nb: Notebook) -> list[str]:
    return [f"code cell {n} ends in {out.ename}" for n, _, out in outputs_of(nb) if out.output_type == "error"]


def no_stderr(nb: Notebook) -> list[str]:
    return [f"code cell {n} writes to stderr: {out.text[:80]!r}" for n, _, out in outputs_of(nb) if out.get("name") == "stderr"]


def known_tags(nb: Notebook) -> list[str]:
    """A misspelt tag is ignored by every tool without a word."""
    return [f"unknown tag {tag!r} on cell {n}" for n, cell in enumerate(nb.cells) for tag in tags_of(cell) if tag not in TAGS]


def parameters_first(nb: Notebook) -> list[str]:
    """One cell of literals, the first code cell; the next one refuses unknown names."""
    cells = code_cells(nb)
    tagged = [n for n, cell in enumerate(cells) if "parameters" in tags_of(cell)]
    if tagged != [0]:
        return [f"`parameters` must be a tag of the first code cell and of no other; it is on {[n + 1 for n in tagged]}"]
    try:
        literals(cells[0].source)
    except (ValueError, SyntaxError) as problem:
        return [str(problem)]
    if len(cells) < 2 or "only_known(globals())" not in cells[1].source:
        return ["the second code cell must call only_known(globals())"]
    return []


def standard_parameters(nb: Notebook) -> list[str]:
    names = [name for cell in code_cells(nb)[:1] for name in re.findall(r"^(\w+)", cell.source, re.MULTILINE)]
    return [f"the parameters cell lacks {name}" for name in STANDARD if name not in names]


def figures_described(nb: Notebook) -> list[str]:
    """Every picture has a name, a number's caption and a text for those who do not see it."""
    problems = []
    for number, cell in enumerate(code_cells(nb), 1):
        mystnb = cell.metadata.get("mystnb", {})
        figure, alt = mystnb.get("figure", {}), mystnb.get("image", {}).get("alt", "").strip()
        caption, pictures = figure.get("caption", "").strip(), has_image(cell)
        where = f"code cell {number}"
        if not pictures:
            problems += [f"{where} describes a figure but has no picture"] * bool(mystnb)
            continue
        problems += [f"{where} has {pictures} pictures: one figure a cell"] * (pictures > 1)
        problems += [f"{where}: mystnb.figure.name must look like fig-…, not {figure.get('name')!r}"] * (
            not re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", ""))
        )
        problems += [f"{where}: no caption"] * (not caption)
        problems += [f"{where}: the alt text {alt!r} is shorter than 20 characters"] * (len(alt) < 20)
        problems += [f"{where}: the alt text only repeats the caption"] * (
            bool(caption) and alt.rstrip(".") == caption.rstrip(".")
        )
    return problems


def no_machine_traces(nb: Notebook) -> list[str]:
    """No paths, dates or marks of the machine that ran the notebook."""
    problems = []
    for n, _, out in outputs_of(nb):
        text = text_of(out)
        problems += [f"code cell {n} shows a path of a machine: {text[:80]!r}"] * bool(MACHINE.search(text) or str(ROOT) in text)
        problems += [f"code cell {n} shows a date with time: {text[:80]!r}"] * bool(CLOCK.search(text))
    for n, cell in enumerate(nb.cells):
        extra = {"papermill", "execution", "ExecuteTime"} & set(cell.metadata)
        problems += [f"cell {n} keeps {key} in its metadata" for key in sorted(extra)]
    meta = json.dumps(nb.metadata)
    problems += [f"the notebook's metadata keep {key}" for key in ("papermill", "widgets") if key in nb.metadata]
    problems += ["the notebook's metadata hold a path"] * bool(MACHINE.search(meta) or str(ROOT) in meta)
    return problems


def python3_kernel(nb: Notebook) -> list[str]:
    spec = nb.metadata.get("kernelspec", {})
    language = spec.get("language") or nb.metadata.get("language_info", {}).get("name")
    return [] if (spec.get("name"), language) == ("python3", "python") else [f"the kernelspec is {dict(spec)}, not python3"]


def no_widgets(nb: Notebook) -> list[str]:
    """A widget is a blank on the page without a network; with TQDM_DISABLE=1 there are no progress bars."""
    kind = "application/vnd.jupyter.widget-view+json"
    return [f"code cell {n} shows a widget" for n, _, out in outputs_of(nb) if kind in out.get("data", {})]


def no_class_numbers(nb: Notebook) -> list[str]:
    """A reader knows what an espresso is, not what 967 is."""
    texts = [(f"cell {n}", cell.source) for n, cell in enumerate(nb.cells)]
    texts += [(f"the output of code cell {n}", text_of(out)) for n, _, out in outputs_of(nb)]
    texts += [
        (f"the figure of code cell {n}", json.dumps(cell.metadata.get("mystnb", {}))) for n, cell in enumerate(code_cells(nb), 1)
    ]
    return [f"{where} has a class number: {found.group()!r}" for where, text in texts for found in CLASS_NUMBER.finditer(text)]


def some_numbers_checked(nb: Notebook) -> list[str]:
    """At least one cell prints a number that nbval compares."""
    ignored = {"nbval-ignore-output", "nbval-skip"}
    texts = [text_of(out) for _, cell, out in outputs_of(nb) if not ignored & set(tags_of(cell))]
    numbers = [text for text in texts if re.search(r"\d", text) and not text.strip().startswith("<Figure")]
    return [] if numbers else ["no cell that nbval compares prints a number"]


def markdown_images_described(nb: Notebook) -> list[str]:
    return [problem for cell in nb.cells if cell.cell_type == "markdown" for problem in images_without_alt(cell.source)]


def no_walls_of_code(nb: Notebook) -> list[str]:
    """A reader sees at most 24 lines of code at once; longer cells are folded."""
    folded = {"hide-input", "hide-cell", "remove-input", "remove-cell", "parameters"}
    lines = {n: len(cell.source.splitlines()) for n, cell in enumerate(code_cells(nb), 1) if not folded & set(tags_of(cell))}
    return [f"code cell {n} shows {length} lines: fold it with the tag hide-input" for n, length in lines.items() if length > 24]


def not_too_large(nb: Notebook) -> list[str]:
    size = len(nbformat.writes(nb).encode()) / 1e6
    return [] if size <= MEGABYTES else [f"the notebook has {size:.1f} MB, more than {MEGABYTES}"]


def images_without_alt(markdown: str) -> list[str]:
    """Pictures in Markdown, HTML or a MyST directive without a text that describes them."""
    problems = [f"a picture without alt text: {found.group()!r}" for found in re.finditer(r"!\[\s*\]\([^)]*\)", markdown)]
    problems += [
        f"a picture without alt text: {tag}"
        for tag in re.findall(r"<img\b[^>]*>", markdown)
        if not re.search(r'alt="[^"]+"', tag)
    ]
    for block in re.findall(r"^(?:`{3,}|:{3,})\{(?:image|figure)\}.*?^(?:`{3,}|:{3,})\s*$", markdown, re.MULTILINE | re.DOTALL):
        problems += [f"a directive without :alt: {block.splitlines()[0]}"] * (
            not re.search(r"^\s*:?alt:\s*\S", block, re.MULTILINE)
        )
    return problems


EVERY = [
    *(executed_in_order, no_errors, no_stderr, known_tags, parameters_first, figures_described, no_machine_traces),
    *(
        python3_kernel,
        no_widgets,
        no_class_numbers,
        some_numbers_checked,
        markdown_images_described,
        no_walls_of_code,
        not_too_large,
    ),
]


@pytest.mark.parametrize("guard", EVERY, ids=lambda guard: guard.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, guard):
    assert guard(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if re.match(r"(?!00)\d\d_", p.name)], ids=lambda path: path.stem)
def test_chapter_has_the_standard_parameters(path):
    assert standard_parameters(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.stem)
def test_markdown_page_describes_its_pictures(path):
    assert images_without_alt(path.read_text(encoding="utf-8")) == []


def names_twice(notebooks: dict[str, Notebook]) -> list[str]:
    """Names of figures that two cells of the book share."""
    seen: dict[str, str] = {}
    problems = []
    for title, nb in notebooks.items():
        for cell in code_cells(nb):
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            if name and name in seen:
                problems.append(f"{name} is in {seen[name]} and in {title}")
            seen[name] = title
    return problems


def test_figure_names_are_unique_in_the_book():
    assert names_twice({path.name: nbformat.read(path, as_version=4) for path in NOTEBOOKS}) == []


def pages_of_toc(toc: Any) -> list[str]:
    """Every page that the table of contents names, in order."""
    if isinstance(toc, list):
        return [page for part in toc for page in pages_of_toc(part)]
    own = [toc[key] for key in ("root", "file") if key in toc]
    return own + [page for key in ("parts", "chapters", "sections") for page in pages_of_toc(toc.get(key, []))]


def test_table_of_contents_names_every_notebook_and_nothing_else():
    pages = pages_of_toc(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    assert [page for page in pages if not any((ROOT / f"{page}{ending}").is_file() for ending in (".ipynb", ".md"))] == []
    assert [path.stem for path in NOTEBOOKS if f"book/{path.stem}" not in pages] == []


# --- each guard objects to a bad notebook ------------------------------------------------------------------------------


def good_notebook() -> Notebook:
    """A notebook that every guard accepts."""
    v4 = nbformat.v4
    picture = v4.new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 300x200 with 1 Axes>"})
    figure = {
        "figure": {"name": "fig-cat", "caption": "Where Grad-CAM looks."},
        "image": {"alt": "A cat whose face is bright in the map"},
    }
    cells = [
        v4.new_markdown_cell("# A title\n\n![A cat](cat.png)\n\nThe class tiger cat wins; 5 classes follow."),
        v4.new_code_cell("\n".join(f"{name} = 0" for name in STANDARD), metadata={"tags": ["parameters"]}),
        v4.new_code_cell("from helpers.parameters import only_known\n\nonly_known(globals())"),
        v4.new_code_cell("plot()", metadata={"mystnb": figure, "tags": ["hide-input"]}, outputs=[picture]),
        v4.new_code_cell("print(0.25)", outputs=[v4.new_output("stream", name="stdout", text="0.25\n")]),
    ]
    nb = v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for count, cell in enumerate(code_cells(nb), 1):
        cell.execution_count = count
    return nb


def stream(text: str, name: str = "stdout") -> Notebook:
    return nbformat.v4.new_output("stream", name=name, text=text)


def figure_of(nb: Notebook) -> Notebook:
    return nb.cells[3].metadata.mystnb


BAD: list[tuple[Callable[[Notebook], list[str]], Callable[[Notebook], Any]]] = [
    (executed_in_order, lambda nb: nb.cells[4].update(execution_count=None)),
    (executed_in_order, lambda nb: nb.cells[4].update(execution_count=9)),
    (executed_in_order, lambda nb: nb.cells.append(nbformat.v4.new_code_cell(""))),
    (executed_in_order, lambda nb: nb.cells[4].metadata.update(tags=["skip-execution", "nbval-skip"])),
    (executed_in_order, lambda nb: nb.cells.append(nbformat.v4.new_code_cell("", metadata={"tags": ["skip-execution"]}))),
    (
        no_errors,
        lambda nb: nb.cells[4].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])),
    ),
    (no_stderr, lambda nb: nb.cells[4].outputs.append(stream("UserWarning: hm", "stderr"))),
    (known_tags, lambda nb: nb.cells[4].metadata.update(tags=["hide_input"])),
    (known_tags, lambda nb: nb.cells[0].metadata.update(tags=["remove-cel"])),
    (no_walls_of_code, lambda nb: nb.cells[4].update(source="x = 1\n" * 25)),
    (parameters_first, lambda nb: nb.cells[1].metadata.update(tags=[])),
    (parameters_first, lambda nb: nb.cells[4].metadata.update(tags=["parameters"])),
    (parameters_first, lambda nb: nb.cells.insert(0, nbformat.v4.new_code_cell("import helpers"))),
    (parameters_first, lambda nb: nb.cells[1].update(source="N_IMAGES = 2 * 3")),
    (parameters_first, lambda nb: nb.cells[1].update(source="N_IMAGES = ")),
    (parameters_first, lambda nb: nb.cells[2].update(source="import helpers")),
    (standard_parameters, lambda nb: nb.cells[1].update(source='MODEL = "lite0"')),
    (figures_described, lambda nb: nb.cells[3].metadata.pop("mystnb")),
    (figures_described, lambda nb: figure_of(nb).pop("image")),
    (figures_described, lambda nb: figure_of(nb).image.update(alt="A cat")),
    (figures_described, lambda nb: figure_of(nb).image.update(alt="Where Grad-CAM looks")),
    (figures_described, lambda nb: figure_of(nb).figure.update(caption="")),
    (figures_described, lambda nb: figure_of(nb).figure.update(name="cat")),
    (figures_described, lambda nb: nb.cells[3].outputs.append(nb.cells[3].outputs[0])),
    (figures_described, lambda nb: nb.cells[3].update(outputs=[])),
    (no_machine_traces, lambda nb: nb.cells[4].outputs.append(stream("saved to /home/ann/book/map.png"))),
    (no_machine_traces, lambda nb: nb.cells[4].outputs.append(stream(f"in {ROOT}"))),
    (no_machine_traces, lambda nb: nb.cells[4].outputs.append(stream("C:\\Users\\ann\\map.png"))),
    (no_machine_traces, lambda nb: nb.cells[4].outputs.append(stream("2026-01-31 12:30:01 done"))),
    (no_machine_traces, lambda nb: nb.cells[4].metadata.update(papermill={"duration": 1})),
    (no_machine_traces, lambda nb: nb.cells[4].metadata.update(execution={"iopub.execute_input": "now"})),
    (no_machine_traces, lambda nb: nb.metadata.update(papermill={})),
    (no_machine_traces, lambda nb: nb.metadata.update(widgets={})),
    (python3_kernel, lambda nb: nb.metadata.kernelspec.update(name="my-env")),
    (python3_kernel, lambda nb: nb.metadata.pop("kernelspec")),
    (python3_kernel, lambda nb: nb.metadata.kernelspec.pop("language")),
    (
        no_widgets,
        lambda nb: nb.cells[4].outputs.append(
            nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
        ),
    ),
    (no_class_numbers, lambda nb: nb.cells[0].update(source="It says class 285.")),
    (no_class_numbers, lambda nb: nb.cells[4].update(source="grad_cam(net, image, target=285)")),
    (no_class_numbers, lambda nb: nb.cells[4].outputs.append(stream("class index: 967"))),
    (no_class_numbers, lambda nb: figure_of(nb).figure.update(caption="The map of class 967")),
    (some_numbers_checked, lambda nb: nb.cells[4].metadata.update(tags=["nbval-ignore-output"])),
    (some_numbers_checked, lambda nb: nb.cells[4].update(outputs=[stream("fine\n")])),
    (markdown_images_described, lambda nb: nb.cells[0].update(source="![](cat.png)")),
    (markdown_images_described, lambda nb: nb.cells[0].update(source='<img src="cat.png">')),
    (markdown_images_described, lambda nb: nb.cells[0].update(source="```{figure} cat.png\n:name: x\nA cat\n```")),
    (not_too_large, lambda nb: nb.cells[4].outputs.append(stream("x" * 3_000_001))),
]


@pytest.mark.parametrize("guard", [*EVERY, standard_parameters], ids=lambda guard: guard.__name__)
def test_guard_accepts_a_good_notebook_and_has_a_bad_one(guard):
    nbformat.validate(good_notebook())
    assert guard(good_notebook()) == []
    assert guard in [bad for bad, _ in BAD]


@pytest.mark.parametrize(("guard", "spoil"), BAD, ids=[f"{guard.__name__}-{n}" for n, (guard, _) in enumerate(BAD)])
def test_guard_objects_to_a_bad_notebook(guard, spoil, tmp_path):
    nb = copy.deepcopy(good_notebook())
    spoil(nb)
    nbformat.write(nb, tmp_path / "bad.ipynb")
    assert guard(nbformat.read(tmp_path / "bad.ipynb", as_version=4))


def test_a_figure_name_used_twice_is_found():
    assert names_twice({"a": good_notebook()}) == []
    assert names_twice({"a": good_notebook(), "b": good_notebook()}) == ["fig-cat is in a and in b"]


# --- guards over a built page ------------------------------------------------------------------------------------------


def page_images(page: BeautifulSoup) -> list[str]:
    """Pictures whose alt text is missing, or is the file's own name, as it is where nobody gave one."""
    alts = [(str(img.get("alt") or "").strip(), str(img.get("src"))) for img in page.find_all("img")]
    return [
        f"{src}: alt text {alt!r}"
        for alt, src in alts
        if not alt or re.search(r"\.(png|jpe?g|svg|gif|webp)$", alt, re.IGNORECASE)
    ]


def page_loads(page: BeautifulSoup) -> list[str]:
    """What the page would fetch from a network: scripts, styles, pictures, frames, fonts."""
    found = [(tag.name, tag.get(key)) for key in ("src", "srcset", "data", "poster") for tag in page.find_all(attrs={key: True})]
    found += [
        ("link", tag.get("href")) for tag in page.find_all("link") if not {"canonical", "author"} & set(tag.get("rel") or [])
    ]
    found += [
        ("style", url)
        for tag in page.find_all("style")
        for url in re.findall(r"(?:url\(|@import\s)\s*['\"]?([^'\")\s;]+)", tag.text)
    ]
    found += [
        ("script", url) for tag in page.find_all("script", src=False) for url in re.findall(r"https?://[^\s'\"]+\.js\b", tag.text)
    ]
    return [f"{name} loads {url}" for name, url in found if re.match(r"(?:https?:)?//", str(url).strip())]


def page_references(page: BeautifulSoup) -> list[str]:
    """References that came to nothing: question marks, nan, or the raw text of a role or directive."""
    article = copy.copy(page.find("article") or page)
    for tag in article.find_all(["pre", "code", "script"]):
        tag.decompose()
    text = article.get_text(" ", strip=True)
    pattern = r"\?\?|\b(?:Fig\.|Eq\.|Table|Section)\s*\(?(?:nan|None|\?)|\{(?:ref|numref|eq|cite|cite:[tp]|doc)\}\S*|\[\?\]"
    return [f"an unresolved reference: {found.group()!r}" for found in re.finditer(pattern, text)]


def page_outline(page: BeautifulSoup) -> list[str]:
    """A title, a language and one main heading."""
    problems = ["no title"] * (not (page.title and page.title.text.strip()))
    problems += ["no language"] * (not (page.html and page.html.get("lang")))
    headings = len((page.find("article") or page).find_all("h1"))
    return problems + [f"{headings} main headings"] * (headings != 1)


def broken_links(path: Path, site: Path) -> list[str]:
    """Relative links of the page at `path` that lead to no file of `site`, or to no anchor in it."""
    problems = []
    for tag in BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find_all(["a", "link"], href=True):
        link = urlsplit(str(tag["href"]))
        if link.scheme or link.netloc or tag["href"] in ("", "#"):
            continue
        target = (path.parent / unquote(link.path)).resolve() if link.path else path
        if not target.is_file() or not target.is_relative_to(site.resolve()):
            problems.append(f"{tag['href']} leads nowhere")
        elif link.fragment and target.suffix == ".html" and unquote(link.fragment) not in anchors(target):
            problems.append(f"{tag['href']}: no such anchor")
    return problems


@cache  # hundreds of links lead to the same large page
def anchors(path: Path) -> set[str]:
    """What a link to the page may name behind its #."""
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    return {tag["id"] for tag in page.find_all(id=True)} | {tag["name"] for tag in page.find_all("a", attrs={"name": True})}


PAGE_GUARDS = [page_images, page_loads, page_references]
built = pytest.mark.skipif(not PAGES, reason="the book is not built: `make book` first")
page_ids = [str(path.relative_to(HTML)) for path in PAGES]


@built
@pytest.mark.parametrize("guard", PAGE_GUARDS, ids=lambda guard: guard.__name__)
@pytest.mark.parametrize("path", PAGES, ids=page_ids)
def test_page(path, guard):
    assert guard(BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")) == []


@built
@pytest.mark.parametrize("path", [p for p in PAGES if p.parent.name in ("book", "teaching")], ids=lambda path: path.stem)
def test_page_of_the_book_has_title_and_heading(path):
    assert page_outline(BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")) == []


@built
@pytest.mark.parametrize("path", PAGES, ids=page_ids)
def test_links_inside_the_book_lead_somewhere(path):
    assert broken_links(path, HTML) == []


@built
def test_every_page_of_the_contents_is_built():
    pages = pages_of_toc(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    assert [page for page in pages if not (HTML / f"{page}.html").is_file()] == []


@built
def test_styles_load_nothing_from_a_network():
    found = {
        f"{path.name}: {url}"
        for path in HTML.rglob("*.css")
        for url in re.findall(r"(?:url\(|@import\s)\s*['\"]?((?:https?:)?//[^'\")\s;]+)", path.read_text(encoding="utf-8"))
    }
    assert found == set()


@built
def test_the_build_leaks_no_sources_and_no_paths():
    """The hidden solutions would be readable in copied sources."""
    assert not (HTML / "_sources").exists()
    assert [str(path) for path in PAGES if str(ROOT) in path.read_text(encoding="utf-8")] == []


GOOD_PAGE = (
    '<html lang="en"><head><title>T</title><link rel="stylesheet" href="a.css"><script src="../x.js"></script></head>'
    '<body><article><h1>T</h1><p>See <a href="https://example.org">Fig. 1.2</a> and Eq. (3). Why?</p>'
    '<img src="a.png" alt="A cat in a basket"><pre>a ?? b {ref}`x`</pre></article></body></html>'
)


@pytest.mark.parametrize(
    ("guard", "old", "new"),
    [
        (page_images, 'alt="A cat in a basket"', ""),
        (page_images, "A cat in a basket", " "),
        (page_images, "A cat in a basket", "../_images/a.png"),
        (page_loads, "../x.js", "https://cdn.example.org/x.js"),
        (page_loads, "a.css", "//cdn.example.org/a.css"),
        (page_loads, 'src="a.png"', 'src="http://example.org/a.png"'),
        (page_loads, "<title>", '<style>@import "https://example.org/font.css";</style><title>'),
        (page_loads, "<title>", '<script>const JS = "https://example.org/lib/index.js"</script><title>'),
        (page_loads, "<title>", '<link rel="preload" href="https://example.org/font.woff"><title>'),
        (page_references, "Fig. 1.2", "Fig. nan"),
        (page_references, "Fig. 1.2", "Fig. ??"),
        (page_references, "Eq. (3)", "{eq}`eq-x`"),
        (page_references, "Eq. (3)", "{cite:t}`nobody`"),
        (page_outline, "<title>T</title>", ""),
        (page_outline, ' lang="en"', ""),
        (page_outline, "<h1>T</h1>", ""),
        (page_outline, "<h1>T</h1>", "<h1>T</h1><h1>U</h1>"),
    ],
)
def test_page_guard_objects_to_a_bad_page_only(guard, old, new):
    assert old in GOOD_PAGE
    assert guard(BeautifulSoup(GOOD_PAGE, "html.parser")) == []
    assert guard(BeautifulSoup(GOOD_PAGE.replace(old, new), "html.parser"))


@pytest.mark.parametrize(
    ("href", "good"),
    [("b.html", True), ("b.html#here", True), ("#top", True), ("https://example.org", True), ("sub/c.html", True)]
    + [("c.html", False), ("b.html#there", False), ("#bottom", False), ("../outside.html", False), ("sub", False)],
)
def test_a_broken_link_is_found(tmp_path, href, good):
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (tmp_path / "outside.html").write_text("x", encoding="utf-8")
    (site / "sub/c.html").write_text("x", encoding="utf-8")
    (site / "b.html").write_text('<p id="here">x</p>', encoding="utf-8")
    (site / "a.html").write_text(f'<p id="top"><a href="{href}">x</a></p>', encoding="utf-8")
    assert bool(broken_links(site / "a.html", site)) is not good
