"""The directive `{quiz}`: questions of `book/quizzes/<name>.yaml` in a page.

    ```{quiz} 05_sise
    ```

A question has choices, each with a reason why it is right or wrong, or asks for a number. On the page a choice is a native
disclosure (`<details>`): it opens by mouse, keyboard and screen reader and works without a script. A number is checked by
`reading.js`; without it the answer is one more disclosure. Nothing leaves the page.

With `audience = "student"` (see `course_plan.py`) the page holds the questions and choices, and neither reason nor number.
"""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)
KEYS = {"name", "ask", "choices", "several", "value", "work", "within", "because", "wrong", "otherwise", "see"}
BUILDERS = ("latex", "text", "man", "texinfo")


# --- what is in a file -------------------------------------------------------------------------------------------------


def read(path: Path, *, answers: bool = True) -> list[dict[str, Any]]:
    """The questions of a file. Raises ValueError with all that is wrong with them. A file for students may lack the answers."""
    questions = yaml.safe_load(path.read_text(encoding="utf-8"))
    problems = problems_of(questions) if answers else []
    if problems:
        raise ValueError(f"{path.name}: " + "; ".join(problems))
    return questions


def problems_of(questions: Any) -> list[str]:
    """One line for everything that keeps these questions from being asked."""
    if not isinstance(questions, list) or not questions:
        return ["a quiz is a list of questions"]
    problems, names = [], []
    for number, question in enumerate(questions, 1):
        if not isinstance(question, dict):
            problems.append(f"question {number} is no mapping")
            continue
        name = question.get("name", "")
        names.append(name)
        where = f"question {number} ({name})"
        problems += [f"{where}: unknown key {key!r}" for key in sorted(set(question) - KEYS)]
        problems += [f"{where}: the name must be small letters, digits and hyphens"] * (
            not re.fullmatch(r"[a-z][a-z0-9-]*", str(name))
        )
        problems += [f"{where}: no {key}" for key in ("ask", "see") if not str(question.get(key) or "").strip()]
        if ("choices" in question) == ("value" in question):
            problems.append(f"{where}: either choices or a value")
        else:
            problems += [f"{where}: {line}" for line in (of_choices if "choices" in question else of_number)(question)]
    return problems + [f"the name {name} is used twice" for name in sorted({n for n in names if names.count(n) > 1})]


def of_choices(question: dict[str, Any]) -> list[str]:
    """Exactly one is right, unless the question says that several are; each has a reason of its own."""
    choices = question["choices"]
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return ["choices must be a list of mappings"]
    right = sum(choice.get("right") is True for choice in choices)
    problems = [f"{len(choices)} choices, fewer than three"] * (len(choices) < 3)
    if question.get("several"):
        problems += [f"several are said to be right, {right} are"] * (right < 2 or right == len(choices))
    else:
        problems += [f"{right} choices are right, not one"] * (right != 1)
    for number, choice in enumerate(choices, 1):
        problems += [f"choice {number}: unknown key {key!r}" for key in sorted(set(choice) - {"text", "right", "because"})]
        problems += [f"choice {number} has no {key}" for key in ("text", "because") if not str(choice.get(key) or "").strip()]
    texts = [str(choice.get("text", "")).strip() for choice in choices]
    # A choice is one thing to press; a link or an equation, with its menu, would be a second one inside of it.
    problems += [
        f"choice {n} holds an equation or a link" for n, text in enumerate(texts, 1) if re.search(r"\$|\]\(|\{\w+\}`", text)
    ]
    reasons = [str(choice.get("because", "")).strip() for choice in choices]
    problems += ["two choices are the same"] * (len(set(texts)) < len(texts))
    return problems + ["two choices have the same reason"] * (len(set(reasons)) < len(reasons))


def of_number(question: dict[str, Any]) -> list[str]:
    """The number follows from its `work`; it and the expected wrong ones can be told apart and have reasons."""
    problems = [f"no {key}" for key in ("work", "within", "because", "otherwise") if key not in question]
    if problems:
        return problems
    value, within = float(question["value"]), float(question["within"])
    worked = calculate(question["work"])
    problems += [f"the work gives {worked}, the value is {value}"] * (not math.isclose(worked, value, abs_tol=within))
    problems += ["within must be above 0"] * (within <= 0)
    for case in question.get("wrong", []):
        if set(case) != {"value", "because"}:
            problems.append("a wrong number has a value and a because")
        elif abs(float(case["value"]) - value) <= within:
            problems.append(f"{case['value']} is expected to be wrong and counts as right")
    return problems


def calculate(work: str) -> float:
    """The value of an arithmetic expression of numbers, `exp` and `max`."""
    if re.search(r"[^0-9eE+\-*/().,\s]", re.sub(r"\b(?:exp|max)\b", "", str(work))):
        raise ValueError(f"only numbers, + - * / ( ), exp and max may stand in {work!r}")
    try:
        return float(eval(str(work), {"__builtins__": {}}, {"exp": math.exp, "max": max}))
    except (ArithmeticError, NameError, SyntaxError, TypeError) as problem:
        raise ValueError(f"{work!r} cannot be calculated: {problem}") from problem


# --- what is on the page -----------------------------------------------------------------------------------------------


class quiz(nodes.General, nodes.Element):
    """All questions; `count` of them."""


class quiz_question(nodes.General, nodes.Element):
    """One question: what is asked, then choices, or an entry field and an answer."""


class quiz_ask(nodes.General, nodes.Element):
    """The text of the question."""


class quiz_choice(nodes.General, nodes.Element):
    """A choice that can be opened: a summary, then the reason."""


class quiz_summary(nodes.General, nodes.Element):
    """What a closed choice shows."""


class quiz_because(nodes.General, nodes.Element):
    """A reason; of a number, with the numbers that it is about."""


class quiz_entry(nodes.General, nodes.Element):
    """A field for a number. Hidden until the script is there that reads it."""


class quiz_see(nodes.General, nodes.Element):
    """A link to the section of this page whose heading is `title`."""


def tag(name: str, **attributes: Any) -> str:
    """A start tag; `class_` is class, other underscores are hyphens, None leaves the attribute out, True has no value."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is not None:
            parts.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    return f"<{' '.join(parts)}>"


def visit_quiz(self: Any, node: quiz) -> None:
    how = {
        True: "Open an answer to see whether it is right, and why. Nothing is sent anywhere.",
        False: "The answers are with your teacher.",
    }[node["answers"]]
    self.body.append(tag("div", class_="quiz", id=node["ids"][0], data_count=node["count"]) + f'<p class="quiz-how">{how}</p>')


def depart_quiz(self: Any, node: quiz) -> None:
    self.body.append('<p class="quiz-count" role="status"></p></div>' if node["answers"] else "</div>")


def visit_question(self: Any, node: quiz_question) -> None:
    ident = node["ids"][0]
    self.body.append(tag("div", class_="quiz-question", id=ident, role="group", aria_labelledby=f"{ident}-ask"))


def visit_ask(self: Any, node: quiz_ask) -> None:
    self.body.append(tag("div", class_="quiz-ask", id=f"{node.parent['ids'][0]}-ask"))


def visit_choice(self: Any, node: quiz_choice) -> None:
    right = node.get("right")
    kind = "quiz-solution" if right is None else "quiz-choice"
    self.body.append(tag("details", class_=kind, data_right=None if right is None else str(right).lower()))


def visit_because(self: Any, node: quiz_because) -> None:
    keys = {key: node.get(key) for key in ("value", "within", "otherwise")}
    self.body.append(tag("div", class_="quiz-because", **{f"data_{key}": value for key, value in keys.items()}))


def visit_entry(self: Any, node: quiz_entry) -> None:
    field = f"{node.parent['ids'][0]}-number"
    self.body.append(
        tag("form", class_="quiz-entry", hidden=True)
        + tag("label", for_=field)
        + "Your number</label> "
        + tag("input", id=field, type="text", inputmode="decimal", autocomplete="off", size="8")
        + ' <button type="submit">Check</button><div class="quiz-said" role="status"></div></form>'
    )


def closing(name: str) -> Any:
    return lambda self, node: self.body.append(f"</{name}>")


def opening(name: str) -> Any:
    return lambda self, node: self.body.append(f"<{name}>")


def nothing(self: Any, node: nodes.Element) -> None:
    """Builders other than HTML show the children one after the other."""


class Quiz(SphinxDirective):
    """`{quiz} name`: the questions of `quizzes/name.yaml` beside the page."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        path = Path(self.env.doc2path(self.env.docname)).parent / "quizzes" / f"{name}.yaml"
        self.env.note_dependency(str(path))
        self.answers = self.config.audience != "student"
        try:
            questions = read(path, answers=self.answers)
        except (OSError, ValueError, yaml.YAMLError) as problem:
            raise self.error(f"quiz {name}: {problem}") from problem
        node = quiz(ids=[f"quiz-{name.replace('_', '-')}"], answers=self.answers, count=len(questions))
        node += [self.question(node["ids"][0], number, question) for number, question in enumerate(questions, 1)]
        return [node]

    def parsed(self, parent: nodes.Element, text: str) -> nodes.Element:
        """`text`, read as the rest of the page is, inside `parent`."""
        self.state.nested_parse(StringList(str(text).strip().splitlines(), source=self.env.docname), 0, parent)
        return parent

    def question(self, prefix: str, number: int, question: dict[str, Any]) -> nodes.Element:
        node = quiz_question(ids=[f"{prefix}-{question['name']}"])
        told = " (More than one is right.)" if question.get("several") else ""
        node += self.parsed(quiz_ask(), f"**{number}.** {question['ask'].strip()}{told}")
        if "choices" in question and self.answers:
            node += [self.choice(choice, question["see"]) for choice in question["choices"]]
        elif "choices" in question:
            node += self.plain(question["choices"])
        elif self.answers:
            node += [quiz_entry(), self.solution(question)]
        return node

    def plain(self, choices: list[dict[str, Any]]) -> nodes.Element:
        """The choices as a list, for a page without answers."""
        return nodes.bullet_list("", *(self.parsed(nodes.list_item(), choice["text"]) for choice in choices))

    def choice(self, choice: dict[str, Any], see: str) -> nodes.Element:
        right = choice.get("right") is True
        text, _ = self.state.inline_text(choice["text"].strip(), self.lineno)
        because = self.parsed(quiz_because(), f"**{'Right.' if right else 'No.'}** {choice['because'].strip()}")
        return quiz_choice("", quiz_summary("", *text), because, quiz_see(title=see), right=right)

    def solution(self, question: dict[str, Any]) -> nodes.Element:
        right = f"**{question['value']}.** {question['because'].strip()}"
        reasons = [self.parsed(quiz_because(value=question["value"], within=question["within"]), right)]
        for case in question.get("wrong", []):
            text = f"**Not {case['value']}.** {case['because'].strip()}"
            reasons.append(self.parsed(quiz_because(value=case["value"], within=question["within"]), text))
        other = self.parsed(quiz_because(otherwise="true"), f"**Any other number:** {question['otherwise'].strip()}")
        summary = quiz_summary("", nodes.Text("Answer"))
        return quiz_choice("", summary, *reasons, other, quiz_see(title=question["see"]))


def plain(title: str) -> str:
    """A heading as it is typed: Sphinx has turned its quotation marks into curly ones."""
    return title.translate(str.maketrans("‘’“”", "''\"\""))


def link_sections(app: Sphinx, doctree: nodes.document) -> None:
    """Turn every `quiz_see` into a link; a heading that is not there warns, and a warning fails the build."""
    headings = {plain(section.next_node(nodes.title).astext()): section["ids"][0] for section in doctree.findall(nodes.section)}
    for node in list(doctree.findall(quiz_see)):
        if plain(node["title"]) not in headings:
            logger.warning("quiz: no section %r in this page", node["title"], location=node)
            node.parent.remove(node)
            continue
        link = nodes.reference("", node["title"], refid=headings[plain(node["title"])], internal=True)
        node.replace_self(nodes.paragraph("", "See ", link, nodes.Text("."), classes=["quiz-see"]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("course_plan")  # it brings the setting `audience`
    app.add_directive("quiz", Quiz)
    app.connect("doctree-read", link_sections)
    pages = {
        quiz: (visit_quiz, depart_quiz),
        quiz_question: (visit_question, closing("div")),
        quiz_ask: (visit_ask, closing("div")),
        quiz_choice: (visit_choice, closing("details")),
        quiz_summary: (opening("summary"), closing("summary")),
        quiz_because: (visit_because, closing("div")),
        quiz_entry: (visit_entry, nothing),
        quiz_see: (nothing, nothing),
    }
    for node, visitors in pages.items():
        app.add_node(node, html=visitors, **dict.fromkeys(BUILDERS, (nothing, nothing)))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
