"""What helps a reader of the pages: the glossary under the pointer, a status page, how to cite, and buttons that run a chapter.

* Every `{term}` brings its definition along, hidden, so that `reading.js` can show it on hover and focus.
* `{status}`: when each chapter was executed, how long it took, with which versions, from which commit. Computed at every build.
* `{citation}`: CITATION.cff as a sentence and as BibTeX.
* The notebooks of the pages under `run/`, with a first cell that installs the tested versions, and a button for each.
* Colab, Binder and the repository's buttons, all switched by one setting: `repository: url:` in `_config.yml`.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "scikit-image", "jupyter-book", "Sphinx", "myst-nb")
BRANCH = "run"  # the notebooks with an installing first cell; the workflow `publish` writes it


# --- the glossary under the pointer ------------------------------------------------------------------------------------


def definitions(app: Sphinx) -> dict[str, str]:
    """Id of a term -> its definition as HTML without links or ids: what a hint may hold."""
    found: dict[str, str] = {}
    pages = {docname for _, _, kind, docname, _, _ in app.env.get_domain("std").get_objects() if kind == "term"}
    for docname in sorted(pages):
        for item in app.env.get_doctree(docname).findall(nodes.definition_list_item):
            terms = [ident for term in item.findall(nodes.term) for ident in term["ids"]]
            text = nodes.container("", *(copy.deepcopy(part) for part in item.next_node(nodes.definition).children))
            for link in list(text.findall(lambda node: isinstance(node, addnodes.pending_xref | nodes.reference))):
                link.replace_self(link.children)
            fragment = app.builder.render_partial(text)["fragment"]
            fragment = re.sub(r"^\s*<div[^>]*>|</div>\s*$", "", re.sub(r'\s(?:id|name)="[^"]*"', "", fragment))
            found |= dict.fromkeys(terms, fragment.strip())
    return found


def add_hints(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Put the definitions of the terms that a page links to at its end."""
    if doctree is None or "body" not in context:
        return
    if not hasattr(app, "seeing_why_definitions"):
        app.seeing_why_definitions = definitions(app)  # type: ignore[attr-defined]
    known = app.seeing_why_definitions  # type: ignore[attr-defined]
    linked = {str(link.get("refuri", "")).partition("#")[2] for link in doctree.findall(nodes.reference)}
    hints = [
        f'<div class="hint" id="hint-{term}" role="tooltip" hidden>{known[term]}</div>' for term in sorted(linked & set(known))
    ]
    context["body"] += "\n".join(["", *hints])
    if any('class="math' in hint for hint in hints):  # so that MathJax comes along where the page has no equation of its own
        app.env.get_domain("math").data["has_equations"][pagename] = True


def list_items(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """The entries of a bibliography are items of its list; the role that docutils writes is deprecated and counts as none."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


# --- the status page ---------------------------------------------------------------------------------------------------


class status_tables(nodes.General, nodes.Element):
    """Stands for the tables until all chapters have been executed."""


class Status(SphinxDirective):
    has_content = False

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["seeing_why_status"] = True
        return [status_tables()]


def status_pages(app: Sphinx, env: Any) -> list[str]:
    """Written anew at every build, whether or not the page itself has changed."""
    return [docname for docname, data in env.metadata.items() if "seeing_why_status" in data and docname in env.found_docs]


class FillStatus(SphinxPostTransform):
    default_priority = 8  # before references are resolved

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(status_tables)):
            node.replace_self([executed_table(self.env), versions_table(Path(self.env.srcdir))])


def executed_table(env: Any) -> nodes.Element:
    data = getattr(env, "nb_metadata", {})
    rows: list[list[Any]] = []
    total = 0.0
    for docname in sorted(data):
        run = data[docname].get("exec_data")
        if run:
            seconds = run["runtime"]
            total += seconds or 0.0
            day = datetime.fromtimestamp(run["mtime"]).strftime("%Y-%m-%d")
            title = env.titles[docname].astext() if docname in env.titles else docname
            link = addnodes.pending_xref(
                "",
                nodes.inline("", title),
                refdoc=env.docname,
                refdomain="std",
                reftype="doc",
                reftarget=f"/{docname}",
                refexplicit=True,
                refwarn=True,
            )
            duration = "not known" if seconds is None else f"{seconds:.0f}\N{NO-BREAK SPACE}s"
            rows.append([link, day, duration, "yes" if run["succeeded"] else f"no: {run['error']}"])
    if not rows:
        return nodes.paragraph("", "No page of this build was executed.")
    rows.append(["all of them", "", f"{total:.0f}\N{NO-BREAK SPACE}s", ""])
    return table(["page", "executed on", "took", "without an error"], rows)


def versions_table(folder: Path) -> nodes.Element:
    rows = [["commit", commit(folder)], ["Python", platform.python_version()]]
    rows += [[name, importlib.metadata.version(name)] for name in PACKAGES]
    rows += [["machine", f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores"]]
    return table(["what", "which"], rows)


def commit(folder: Path) -> str:
    """The commit of the sources, and whether they differ from it; honest where there is no git."""

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return result.stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + (", with changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not known: these sources are not in a git repository"


def table(head: list[str], rows: list[list[Any]]) -> nodes.table:
    """A docutils table; a cell is text or a node."""

    def row(cells: list[Any]) -> nodes.row:
        texts = [cell if isinstance(cell, nodes.Node) else nodes.Text(cell) for cell in cells]
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", text)) for text in texts))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += [nodes.thead("", row(head)), nodes.tbody("", *map(row, rows))]
    return nodes.table("", group, classes=["colwidths-auto"])


# --- how to cite -------------------------------------------------------------------------------------------------------


def reference(cff: dict[str, Any], url: str = "") -> tuple[str, str]:
    """A sentence and a BibTeX entry from the contents of CITATION.cff."""
    people = [person.get("name") or f"{person['given-names']} {person['family-names']}" for person in cff["authors"]]
    year = str(cff.get("date-released", ""))[:4]
    url = cff.get("repository-code") or cff.get("url") or url
    doi = cff.get("doi", "")
    where = f"https://doi.org/{doi}" if doi else url
    made = f" ({year})" if year else " (not yet released)"
    sentence = f"{', '.join(people)}{made}. {cff['title']}. Version {cff['version']}. {where}".strip()
    fields = {"author": " and ".join(f"{{{name}}}" for name in people), "title": f"{{{cff['title']}}}", "year": year}
    fields |= {"version": str(cff["version"]), "doi": doi, "url": url}
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    return sentence, "\n".join(["@software{seeing_why,", *lines, "}"])


class Citation(SphinxDirective):
    has_content = False

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "CITATION.cff"
        self.env.note_dependency(str(path))
        url = self.config.html_theme_options.get("repository_url", "")
        sentence, bibtex = reference(yaml.safe_load(path.read_text(encoding="utf-8")), url)
        return [nodes.paragraph("", sentence), nodes.literal_block(bibtex, bibtex, language="bibtex")]


# --- run this ----------------------------------------------------------------------------------------------------------

INSTALL = """\
# Written by the build: fetches the book and installs the versions that its pages were made with. In a checkout it does nothing.
import os
import subprocess
import sys

REPOSITORY, REVISION = "{url}", "{revision}"
if not (os.path.isdir("../helpers") or os.path.isdir("helpers")):
    if not REPOSITORY:
        raise FileNotFoundError("put this notebook into the folder book/ of the sources of Seeing Why and start it there")
    print("A few minutes: PyTorch and the rest, in the tested versions.")
    if not os.path.isdir("seeing-why"):
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, "seeing-why"], check=True)
    os.chdir("seeing-why")
    subprocess.run(["git", "checkout", "--quiet", REVISION], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", ".[book]"], check=True)
    if "numpy" in sys.modules:
        print("If an import complains: restart the session (Runtime, Restart session) and begin again with this cell.")
if os.path.isdir("helpers"):
    os.chdir("book")
sys.path.insert(0, os.path.abspath(".."))
"""


def runnable(notebook: dict[str, Any], url: str, revision: str) -> dict[str, Any]:
    """A copy without outputs that installs what it needs. The notebook itself is left as it is."""
    made = copy.deepcopy(notebook)
    for cell in made["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    source = INSTALL.format(url=url, revision=revision).splitlines(keepends=True)
    first = {"cell_type": "code", "id": "install", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
    made["cells"].insert(0, first)
    return made


def write_runnable(sources: Path, target: Path, pages: list[str], url: str, revision: str) -> list[Path]:
    """`target/<page>.ipynb` for every page that is a notebook."""
    written = []
    for page in pages:
        path = sources / f"{page}.ipynb"
        if path.is_file():
            made = runnable(json.loads(path.read_text(encoding="utf-8")), url, revision)
            written.append(target / f"{page}.ipynb")
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return written


def copy_notebooks(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        url = app.config.html_theme_options.get("repository_url", "")
        known = re.match(r"[0-9a-f]+", commit(Path(app.srcdir)))
        revision = known.group() if known else app.config.html_theme_options.get("repository_branch") or "main"
        write_runnable(Path(app.srcdir), Path(app.outdir) / "run", sorted(app.env.found_docs), url, revision)


def switch_on(app: Sphinx, config: Any) -> None:
    """With an address of the repository all its buttons appear; without one there are none."""
    theme = config.html_theme_options
    if not theme.get("repository_url"):
        return
    theme["launch_buttons"] = {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    }
    theme |= {"use_repository_button": True, "use_issues_button": True, "use_edit_page_button": True}


def download_button(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """A button for the notebook of the page; Colab is led to the branch whose notebooks install what they need."""
    if not (Path(app.srcdir) / f"{pagename}.ipynb").is_file() or "header_buttons" not in context:
        return
    context["header_buttons"].append(
        {
            "type": "link",
            "url": context["pathto"](f"run/{pagename}.ipynb", 1),
            "text": ".ipynb",
            "tooltip": "Download this chapter as a notebook",
            "icon": "fas fa-download",
            "label": "download-notebook",
        }
    )
    own = app.config.html_theme_options.get("repository_branch") or "master"
    for group in context["header_buttons"]:
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(f"/blob/{own}/", f"/blob/{BRANCH}/")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(status_tables)
    app.add_directive("status", Status)
    app.add_directive("citation", Citation)
    app.add_post_transform(FillStatus)
    app.connect("config-inited", switch_on)
    app.connect("env-updated", status_pages)
    app.connect("html-page-context", add_hints, priority=400)  # before MathJax looks whether the page has equations
    app.connect("html-page-context", list_items)
    app.connect("html-page-context", download_button, priority=900)  # after the theme has made its buttons
    app.connect("build-finished", copy_notebooks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
